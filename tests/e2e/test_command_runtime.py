"""The command runtime, with real daemons and a real program: what it is called with, and how it may end."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from repo.base import Lifecycle
from tests.support.audit import audit, unlocked
from tests.support.fleet import HANG_GUARD_S, Fleet, running_fleet, wait_status
from worker.client import LifecycleClient
from worker.liveness.locks import DeckyLocks
from worker.runtimes.base import RuntimeUnavailable
from worker.runtimes.command import CommandRuntime
from worker.runtimes.subprocesses import exited

pytestmark = pytest.mark.anyio

# What it was called with is one line of its log; a service's name tells it what to do.
PROGRAM = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >>"$here/calls"
echo "password is hunter2, $1 of $2 begins"
[ -n "$DECNET_REAPER_REDIS" ] && exit 9
case "$*" in
    *-fails*) echo "no licence for that"; exit 3 ;;
    *-hangs*) sleep 1000 & echo $! >"$here/child"; wait ;;
    *-silent*) exit 4 ;;
    *-leaves*) setsid sleep 1000 & echo $! >"$here/child" ;;
esac
exit 0
"""


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with running_fleet() as fleet:
        program = fleet.root / "program"
        program.write_text(PROGRAM)
        program.chmod(0o700)
        fleet.set(runtime="command", runtime_command=str(program), log_level="debug")
        yield fleet


def document(*services: str) -> dict[str, Any]:
    base: dict[str, Any] = {"decky-01": {"environment": {"PASSWORD": "hunter2"}}}
    return {"services": base | {f"decky-01-{name}": {"image": "decoy"} for name in services}}


def calls(fleet: Fleet) -> list[str]:
    file = fleet.root / "state" / "deckies" / "decky-01" / "compose.yaml"
    return (fleet.root / "calls").read_text().replace(f" {file}", " FILE").splitlines()


async def ended(client: LifecycleClient, lifecycle_id: str) -> Lifecycle:
    return await client.wait(lifecycle_id, timeout=HANG_GUARD_S)


async def child(fleet: Fleet) -> int:
    """Wait for the pid of the program's child."""
    async with asyncio.timeout(HANG_GUARD_S):
        while not (file := fleet.root / "child").exists() or not file.read_text().strip():
            await asyncio.sleep(0.01)
    return int(file.read_text())


async def gone(pid: int) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        await exited(pid)


async def test_it_is_called_with_the_operation_the_decky_the_document_and_its_services(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        deployed = await ended(client, await client.deploy("decky-01", document("ssh", "http")))
        assert (deployed["status"], deployed["error"]) == ("succeeded", None)
        file = fleet.root / "state" / "deckies" / "decky-01" / "compose.yaml"
        assert list(json.loads(file.read_text())["services"]) == ["decky-01", "decky-01-http", "decky-01-ssh"]
        await ended(client, await client.mutate("decky-01", services=["http"]))
        assert list(json.loads(file.read_text())["services"]) == ["decky-01", "decky-01-http"]
        await ended(client, await client.teardown("decky-01"))
        assert not file.exists()
        assert calls(fleet) == [
            "deploy decky-01 FILE decky-01 decky-01-http decky-01-ssh",
            "mutate decky-01 FILE decky-01 decky-01-http",
            "teardown decky-01 FILE",
        ]
        line = await worker.log("runtime.output", lifecycle_id=deployed["id"])
        assert line["line"] == "password is ***, deploy of decky-01 begins"
        succeeded = await worker.log("lifecycle.succeeded", lifecycle_id=deployed["id"])
        assert succeeded["runtime"] == "command"
        await audit(fleet, client)


async def test_in_a_locale_without_utf8_a_document_and_the_configuration_may_have_any_letter(
    fleet: Fleet,
) -> None:
    (fleet.root / "config.toml").write_text("# Zürich: 5 €\n", encoding="utf-8")
    await fleet.worker(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    named: dict[str, Any] = {"services": {"decky-01": {"environment": {"BANNER": "Zürich: 5 €"}}}}
    async with fleet.client() as client:
        deployed = await ended(client, await client.deploy("decky-01", named))
        assert (deployed["status"], deployed["error"]) == ("succeeded", None)
        file = fleet.root / "state" / "deckies" / "decky-01" / "compose.yaml"
        written = json.loads(file.read_text(encoding="utf-8"))
        assert written["services"]["decky-01"]["environment"] == {"BANNER": "Zürich: 5 €"}


async def test_its_exit_status_and_last_lines_make_the_row_and_a_mutate_is_brought_back(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        failed = await ended(client, await client.deploy("decky-01", document("fails")))
        assert failed["status"] == "failed"
        assert failed["error"] == "password is ***, deploy of decky-01 begins\nno licence for that"
        await ended(client, await client.deploy("decky-01", document("ssh")))
        failed = await ended(client, await client.mutate("decky-01", compose=document("fails")))
        assert failed["status"] == "failed"
        assert "no licence for that" in (failed["error"] or "")
        assert "the previous services were brought back: decky-01, decky-01-ssh" in (failed["error"] or "")
        assert calls(fleet)[-2:] == [
            "mutate decky-01 FILE decky-01 decky-01-fails",
            "mutate decky-01 FILE decky-01 decky-01-ssh",
        ]


async def test_one_that_hangs_is_ended_with_all_that_it_started(fleet: Fleet) -> None:
    await fleet.set(operation_timeout="1s").worker()
    async with fleet.client() as client:
        row = await ended(client, await client.deploy("decky-01", document("hangs")))
        assert (row["status"], row["error"]) == ("failed", "timed out after 1 s")
        await gone(await child(fleet))


async def test_a_cancel_ends_it(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", document("hangs"))
        pid = await child(fleet)
        row = await client.cancel(lifecycle_id)
        assert (row["status"], row["error"]) == ("failed", "cancelled by operator")
        await gone(pid)


async def test_it_holds_the_lock_and_dies_with_its_worker(fleet: Fleet) -> None:
    worker, _ = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", document("hangs"))
        pid = await child(fleet)
        holders = {hold.pid for hold in DeckyLocks.of(fleet.settings).holders("decky-01", None)}
        assert {pid, worker.pid} < holders
        await worker.kill()
        row = await ended(client, lifecycle_id)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation")
        await gone(pid)
        await wait_status(client, row["retry_id"] or "", "pending")


async def test_what_it_leaves_behind_with_the_lock_in_hand_is_ended_before_the_row_ends(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        row = await ended(client, await client.deploy("decky-01", document("leaves")))
        holders = {hold.pid for hold in DeckyLocks.of(fleet.settings).holders("decky-01", None)}
        assert row["status"] == "succeeded"
        assert holders <= {worker.pid}
        await gone(await child(fleet))
        await unlocked(fleet, "decky-01")


async def test_a_program_that_cannot_be_run_is_said_at_the_start(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    for command, said in (("", "names no program"), (str(tmp_path / "text"), "may not be run")):
        status, _, err = await fleet.run("worker", DECNET_REAPER_RUNTIME_COMMAND=command)
        assert status == 3
        assert said in err
    with pytest.raises(RuntimeUnavailable, match="is not there"):
        await CommandRuntime(tmp_path, ["/no/such/program"]).check()


async def test_words_or_a_list_of_them_name_the_program(fleet: Fleet) -> None:
    script = fleet.root / "with blanks"
    script.write_text(PROGRAM)
    (fleet.root / "config.toml").write_text(f'runtime_command = ["/bin/sh", "{script}", "-x"]\n')
    del fleet.environment["DECNET_REAPER_RUNTIME_COMMAND"]
    await fleet.worker()
    async with fleet.client() as client:
        assert (await ended(client, await client.deploy("decky-01", document())))["status"] == "succeeded"
    assert calls(fleet) == ["-x deploy decky-01 FILE decky-01"]
