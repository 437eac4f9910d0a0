"""The command line on a terminal: progress, colours, tables that fit."""

import json
import re
import signal

import pytest

from tests.support.fleet import Fleet, wait_status
from tests.support.programs.terminal import Terminal
from tests.support.store.stores import store_at

pytestmark = pytest.mark.anyio

GREEN = "\x1b[32m"


def write(fleet: Fleet, decky_name: str, gate: bool = False) -> str:
    file = fleet.root / f"{decky_name}.json"
    document = fleet.document(decky_name, "ssh", gate=fleet.gate() if gate else None)
    file.write_text(json.dumps(document))
    return str(file)


async def test_waiting_shows_why_then_that_it_runs_then_one_line(fleet: Fleet) -> None:
    await fleet.worker()
    first = write(fleet, "decky-01", gate=True)
    async with fleet.client() as client:
        status, out, _ = await fleet.run("deploy", "decky-01", "--compose", first)
        assert status == 0
        await wait_status(client, out.strip(), "running")
    async with Terminal(fleet, "mutate", "decky-01", "--services", "ssh", "--wait", columns=120) as terminal:
        await terminal.shows("mutate of decky-01 pending, waiting for decky-01's running deploy")
        fleet.gate().touch()
        assert await terminal.ended() == 0
        last = terminal.text.strip().splitlines()[-1]
        assert "mutate of decky-01 succeeded (" in last


async def test_a_running_operation_is_told_and_ctrl_c_leaves_it_alone(fleet: Fleet) -> None:
    await fleet.worker()
    file = write(fleet, "decky-01", gate=True)
    async with Terminal(fleet, "deploy", "decky-01", "--compose", file, "--wait") as terminal:
        await terminal.shows("deploy of decky-01 running")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ended() == 130
        assert "the work goes on: decnet-reaper status" in terminal.text
        assert "Traceback" not in terminal.text
    async with fleet.client() as client:
        [row] = await client.repository.list_lifecycles()
        assert row["status"] == "running"
        fleet.gate().touch()
        assert (await client.wait(row["id"], timeout=30))["status"] == "succeeded"


@pytest.mark.parametrize("columns", [40, 80])
async def test_what_the_runtime_does_is_shown_dim_behind_the_state(fleet: Fleet, columns: int) -> None:
    await fleet.worker()
    document = fleet.document("decky-01", "ssh", gate=fleet.gate())
    check = document["services"]["decky-01"]["healthcheck"]
    check["test"] = [
        "CMD-SHELL",
        f"test -e {fleet.gate()} || {{ printf '\\033[2Jno key for hunter2'; exit 1; }}",
    ]
    document["services"]["decky-01"]["environment"] = {"PASSWORD": "hunter2"}
    file = fleet.root / "decky-01.json"
    file.write_text(json.dumps(document))
    wait = ["deploy", "decky-01", "--compose", str(file), "--wait"]
    async with Terminal(fleet, *wait, columns=columns) as terminal:
        await terminal.shows("running  decky-01 is not healthy yet: no key for ***"[: columns - 30] + "…")
        assert "\x1b[2m  d" in terminal.raw, "dimmed"
        assert "hunter2" not in terminal.text
        fleet.gate().touch()
        assert await terminal.ended() == 0
        shown = re.split(r"[\r\n]+", terminal.text)
        assert max(len(line) for line in shown if "succeeded" not in line) <= columns


async def test_without_redis_the_end_is_seen_all_the_same(fleet: Fleet) -> None:
    await fleet.worker()
    file = write(fleet, "decky-01", gate=True)
    async with Terminal(fleet, "deploy", "decky-01", "--compose", file, "--wait") as terminal:
        await terminal.shows("decky-01 is not healthy yet")
        await fleet.kill_queue()
        fleet.gate().touch()
        assert await terminal.ended() == 0
        assert "deploy of decky-01 succeeded (" in terminal.text
        assert "Traceback" not in terminal.text


async def test_a_fleet_has_a_progress_bar(fleet: Fleet) -> None:
    directory = fleet.root / "fleet"
    directory.mkdir()
    for name in ("decky-01", "decky-02"):
        gate = fleet.gate() if name == "decky-02" else None
        (directory / f"{name}.json").write_text(json.dumps(fleet.document(name, gate=gate)))
    await fleet.worker()
    async with Terminal(fleet, "deploy", "--fleet", str(directory), "--wait", columns=100) as terminal:
        await terminal.shows("1/2")
        fleet.gate().touch()
        assert await terminal.ended() == 0
        assert "2 deckies: 2 succeeded, 0 failed" in terminal.text


@pytest.mark.parametrize("columns", [80, 200])
async def test_a_table_fits_its_terminal(fleet: Fleet, columns: int) -> None:
    reason = "service decky-02-http exited with status 3: bind: address already in use, " * 4
    async with fleet.client() as client:
        repository = client.repository
        good = await repository.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
        await repository.update_lifecycle(good, {"status": "succeeded"})
        bad = await repository.create_lifecycle({"decky_name": "decky-02", "operation": "mutate"})
        await repository.update_lifecycle(bad, {"status": "failed", "error": reason})
    async with Terminal(fleet, "list", columns=columns) as terminal:
        assert await terminal.ended() == 0
        lines = terminal.text.splitlines()
        assert max(map(len, lines)) <= columns
        assert re.search(r"decky-01 +deploy +succeeded", terminal.text)
        assert f"{GREEN}succeeded" in terminal.raw
        assert (good if columns == 200 else good[-8:]) in terminal.text.split()
        assert lines[2].startswith("    service decky-02-http exited with status 3")
    async with Terminal(fleet, "status", bad[-8:], columns=columns) as terminal:
        assert await terminal.ended() == 0
        told = " ".join(terminal.text.split())
        assert reason.strip() in told, "status tells an error in full"


@pytest.mark.parametrize("columns", [40, 80])
async def test_the_doctor_wraps_what_it_says(fleet: Fleet, columns: int) -> None:
    await fleet.kill_queue()
    async with Terminal(fleet, "doctor", columns=columns, TERM="dumb") as terminal:
        assert await terminal.ended() == 3
        assert "(decnet-reaper up brings one), or set DECNET_REAPER_REDIS" in " ".join(terminal.text.split())
        for line in terminal.text.splitlines():
            assert len(line) <= columns or len(line.split()) == 1, line
            assert line[:5] in {"ok   ", "note ", "FAIL ", "     "}


async def test_without_colours_the_words_say_it(fleet: Fleet) -> None:
    async with fleet.client() as client:
        await client.deploy("decky-01", fleet.document("decky-01"))
    async with Terminal(fleet, "list", NO_COLOR="1") as terminal:
        assert await terminal.ended() == 0
        assert "pending" in terminal.raw
        assert "\x1b[" not in terminal.raw


async def test_what_a_row_says_cannot_steer_the_terminal(fleet: Fleet) -> None:
    async with fleet.client() as client:
        row = await client.repository.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
        await client.repository.update_lifecycle(row, {"status": "failed", "error": "\x1b[2Jgone\r\nnew"})
    async with Terminal(fleet, "status", row) as terminal:
        assert await terminal.ended() == 0
        assert "\x1b[2J" not in terminal.raw
        assert "gone" in terminal.text


@pytest.mark.parametrize(
    ("command", "expected"), [(["deckies"], 0), (["sweep", "--dry-run"], 0), (["cancel", "01-ended"], 2)]
)
async def test_what_others_wrote_cannot_steer_the_terminal(
    fleet: Fleet, command: list[str], expected: int
) -> None:
    row = {"decky_name": "\x1b[2Jgone\r\nnew", "operation": "deploy"}
    row |= dict.fromkeys(("started_at", "updated_at"), "2020-01-01 00:00:00.000000")
    with store_at(fleet.settings.database).shell() as shell:
        shell.insert(**row, id="01-\x1b[2J", status="pending")
        ended = {"status": "failed", "error": "x", "completed_at": row["updated_at"]}
        shell.insert(**row, id="01-ended", **ended)
    async with Terminal(fleet, *command) as terminal:
        assert await terminal.ended() == expected
        assert "\x1b[2J" not in terminal.raw
        assert "gone new" in terminal.text


async def test_watch_is_a_live_table_and_ctrl_c_is_its_end(fleet: Fleet) -> None:
    async with Terminal(fleet, "watch", "--open") as terminal:
        await terminal.shows("0 running, 0 pending")
        async with fleet.client() as client:
            await client.deploy("decky-01", fleet.document("decky-01"))
        await terminal.shows("0 running, 1 pending")
        await terminal.shows("decky-01")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ended() == 0
        assert "Traceback" not in terminal.text
