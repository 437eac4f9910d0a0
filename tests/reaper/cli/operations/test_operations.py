"""Commands that take down, repeat and cancel, what each decky runs, and how long one waits."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.fleet import Fleet, gated, wait_status

pytestmark = pytest.mark.anyio


async def run_json(fleet: Fleet, *arguments: str) -> Any:
    status, out, err = await fleet.run(*arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def write(fleet: Fleet, decky_name: str, *services: str, gate: bool = False) -> str:
    file = fleet.root / f"{decky_name}.json"
    document = fleet.document(decky_name, *services, gate=fleet.gate() if gate else None)
    file.write_text(json.dumps(document))
    return str(file)


async def test_deckies_says_what_runs_until_a_teardown_takes_it_away(fleet: Fleet) -> None:
    await fleet.worker()
    file = write(fleet, "decky-01", "ssh", "http")
    row = await run_json(fleet, "deploy", "decky-01", "--compose", file, "--wait")
    [decky] = await run_json(fleet, "deckies")
    assert decky == {
        "decky_name": "decky-01",
        "host_uuid": None,
        "services": ["decky-01", "decky-01-http", "decky-01-ssh"],
        "host_away": None,
        "deployed_at": decky["deployed_at"],
        "lifecycle_id": row["id"],
        "open": [],
    }
    await run_json(fleet, "mutate", "decky-01", "--services", "ssh", "--wait")
    _, out, _ = await fleet.run("deckies")
    assert out.splitlines()[1].split()[:2] == ["decky-01", "ssh"]
    status, out, _ = await fleet.run("teardown", "decky-01", "--wait")
    assert status == 0
    assert out.startswith("teardown of decky-01 succeeded (")
    assert await run_json(fleet, "deckies") == []
    assert await fleet.run("deckies") == (0, "", "decnet-reaper: no decky is deployed yet\n")
    status, out, err = await fleet.run("mutate", "decky-01", "--services", "ssh")
    assert (status, out) == (2, "")
    assert "deploy it before you mutate it" in err


async def test_deckies_names_the_operation_that_is_open(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        running = await gated(fleet, client)
        pending = await client.teardown("decky-01")
        [decky] = await run_json(fleet, "deckies")
        assert decky["open"] == [
            {"id": running, "operation": "deploy", "status": "running"},
            {"id": pending, "operation": "teardown", "status": "pending"},
        ]
        _, out, _ = await fleet.run("deckies")
        assert out.splitlines()[1].split() == [
            "decky-01",
            "-",
            "-",
            "-",
            *["deploy", "running", "and", "1", "more"],
        ]
        fleet.gate().touch()
        await client.wait(pending, timeout=60)


async def test_a_retry_is_a_new_row_that_names_the_old_one(fleet: Fleet) -> None:
    await fleet.worker()
    file = write(fleet, "decky-01")
    first = await run_json(fleet, "deploy", "decky-01", "--compose", file, "--wait")
    again = await run_json(fleet, "retry", first["id"][-8:], "--wait")
    assert (again["status"], again["retry_of"], again["attempt"]) == ("succeeded", first["id"], 1)
    status, out, err = await fleet.run("retry", again["id"], "no-such-id")
    assert status == 2
    assert len(out.split()) == 2  # the id and its decky
    assert "no-such-id" in err


async def test_what_is_open_can_be_cancelled_by_decky_and_all_at_once(fleet: Fleet) -> None:
    async with fleet.client() as client:
        for name in ("decky-01", "decky-02", "decky-03"):
            await client.deploy(name, fleet.document(name))
        [row] = await run_json(fleet, "cancel", "--decky", "decky-02")
        assert (row["decky_name"], row["outcome"]) == ("decky-02", "cancelled")
        rows = await run_json(fleet, "cancel", "--open")
        assert sorted(row["decky_name"] for row in rows) == ["decky-01", "decky-03"]
    assert await fleet.run("cancel", "--open") == (0, "", "decnet-reaper: nothing is pending or running\n")
    status, out, err = await fleet.run("cancel", row["id"], "--json")
    assert (status, out) == (2, "")
    assert f"{row['id']} has ended already: the deploy of decky-02 failed" in err


async def test_a_cancel_of_one_id_is_an_object_and_of_several_an_array(fleet: Fleet) -> None:
    async with fleet.client() as client:
        first, *others = [
            await client.deploy(name, fleet.document(name)) for name in ("decky-01", "decky-02", "decky-03")
        ]
    assert (await run_json(fleet, "cancel", first))["outcome"] == "cancelled"
    assert [row["id"] for row in await run_json(fleet, "cancel", *others)] == others


@pytest.mark.parametrize("arguments", [[], ["some-id", "--open"], ["--decky", "decky-01", "--open"]])
async def test_a_cancel_says_what_it_is_about_in_one_way(fleet: Fleet, arguments: list[str]) -> None:
    status, out, err = await fleet.run("cancel", *arguments)
    assert (status, out) == (2, "")
    assert "either ids, or --decky NAME, or --open" in err


async def test_waiting_ends_with_its_timeout_and_the_work_goes_on(fleet: Fleet) -> None:
    await fleet.worker()
    file = write(fleet, "decky-01", gate=True)
    status, out, err = await fleet.run("deploy", "decky-01", "--compose", file, "--wait", "--timeout", "1s")
    assert (status, out) == (3, "")
    assert "not ended after 1.0s; the work goes on: decnet-reaper status " in err.splitlines()[-1]
    fleet.gate().touch()
    async with fleet.client() as client:
        await wait_status(client, err.split()[-1], "succeeded")


# Compose's own words, and an engine that doesn't answer.
AWAY = 'import sys; print("2.40.3") if "version" in sys.argv else sys.exit("no daemon")'


async def test_where_no_worker_is_the_waiting_is_given_up(fleet: Fleet) -> None:
    script = fleet.root / "away.py"
    script.write_text(AWAY)
    runtime = {
        "DECNET_REAPER_RUNTIME": "compose",
        "DECNET_REAPER_COMPOSE_COMMAND": f"{sys.executable} {script}",
    }
    (status, out, err), (waited, _, why) = await asyncio.gather(
        fleet.run("deploy", "decky-01", "--compose", write(fleet, "decky-01"), "--wait", "--json"),
        fleet.run(
            "deploy", "decky-02", "--compose", write(fleet, "decky-02"), "--wait", stdin=b"", **runtime
        ),
    )
    assert status == waited == 3
    assert json.loads(out)["status"] == "pending"
    assert "no worker takes the deploy of decky-01: is one running?" in err
    assert "until its runtime answers: the Docker engine can't be reached, start it" in why


async def test_a_wait_behind_another_operation_is_not_given_up(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        await gated(fleet, client)
        waiting = asyncio.create_task(fleet.run("teardown", "decky-01", "--wait"))
        done, _ = await asyncio.wait({waiting}, timeout=20)  # longer than a missing worker is waited for
        assert not done
        fleet.gate().touch()
        status, _, _ = await waiting
    assert status == 0


async def test_what_is_accepted_is_said_where_standard_output_is_full(fleet: Fleet) -> None:
    command = [sys.executable, "-m", "reaper", "deploy", "decky-01", "--compose", write(fleet, "decky-01")]
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" >/dev/full', "sh", *command), env=fleet.environment, stderr=subprocess.PIPE
    )
    _, err = await process.communicate()
    async with fleet.client() as client:
        [row] = await client.repository.list_lifecycles()
    assert process.returncode == 3
    assert err.decode() == (
        "decnet-reaper: the output can't be written: No space left on device; what was asked for is accepted"
        f" as {row['id']}\n"
    )


async def test_a_timeout_is_for_waiting(fleet: Fleet) -> None:
    status, _, err = await fleet.run("teardown", "decky-01", "--timeout", "5s")
    assert status == 2
    assert "--timeout is for --wait" in err
