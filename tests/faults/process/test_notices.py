"""What the reaper is told at once: that a worker is at work, and what systemd says of its end."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.audit import audit
from tests.support.fleet import Daemon, Fleet, gated, running_fleet
from worker.client import LifecycleClient
from worker.service import after_stop

pytestmark = pytest.mark.anyio

RUN = "0123456789abcdef" * 2
AS_UNIT = ("sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$@"', "sh", sys.executable)
COMMAND = ("-m", "reaper")
HOOK = ("-IS", after_stop.__file__, sys.executable, *COMMAND, "sweep", "--after-stop")


async def unit(fleet: Fleet, *arguments: str, **environment: str) -> Daemon:
    """What systemd would start as this run of a unit."""
    process = await asyncio.create_subprocess_exec(
        *AS_UNIT,
        *arguments,
        env=fleet.environment | {"INVOCATION_ID": RUN} | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    started = Daemon(process)
    fleet.daemons.append(started)
    return started


async def lose_a_unit(fleet: Fleet, client: LifecycleClient) -> str:
    """A worker's unit is killed in mid-operation; the row."""
    worker = await unit(fleet, *COMMAND, "worker")
    await worker.log("worker.started")
    lost = await gated(fleet, client)
    await worker.kill()
    return lost


async def ended(fleet: Fleet) -> Daemon:
    """ExecStopPost=, run to its end."""
    process = await unit(fleet, *HOOK, SERVICE_RESULT="oom-kill")
    assert await process.process.wait() == 0
    return process


async def test_a_worker_that_dies_in_its_first_operation_is_found_out_without_a_beat() -> None:
    async with running_fleet(reap_interval="3600") as fleet, fleet.client() as client:
        await fleet.reaper()
        worker = await fleet.worker()
        lost = await gated(fleet, client)
        await worker.kill()
        row = await client.wait(lost, timeout=30)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation")
        await audit(fleet, client)


async def test_the_reaper_closes_a_run_s_rows_with_systemd_s_reason_before_the_unit_restarts(
    fleet: Fleet,
) -> None:
    reaper = await fleet.reaper()
    async with fleet.client() as client:
        lost = await lose_a_unit(fleet, client)
        told = await ended(fleet)
        row = await client.get(lost)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation (oom-kill)")
        assert len(reaper.logged("lifecycle.swept", lifecycle_id=lost)) == 1
        assert told.lines == []
        await audit(fleet, client)


@pytest.mark.parametrize("reaper", ["none", "stopped", "killed"])
async def test_without_a_reaper_that_answers_the_unit_closes_its_own_rows(fleet: Fleet, reaper: str) -> None:
    async with fleet.client() as client:
        # Before the worker dies: a reaper that is stopped in mid-sweep holds the decky and its row.
        if reaper != "none":
            daemon = await fleet.reaper()
        if reaper == "stopped":
            daemon.signal(signal.SIGSTOP)
        if reaper == "killed":
            await daemon.kill()
        lost = await lose_a_unit(fleet, client)
        await ended(fleet)
        row = await client.get(lost)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation (oom-kill)")
        if reaper == "stopped":
            daemon.signal(signal.SIGCONT)
        await audit(fleet, client)


async def test_what_is_no_notice_is_not_heard(fleet: Fleet) -> None:
    reaper = await fleet.reaper()
    path = fleet.root / "run" / "reaper.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        for rubbish in (b"", b"\xff", b"\x80pickle", b"at-work x", b"ended", b"ended x"):
            channel.sendto(rubbish, str(path))
        # Of another process than the owner of any row: watched, dies, and nothing comes of it.
        channel.sendto(f"at-work h/b/{os.getpid()}/1/t".encode(), str(path))
    async with fleet.client() as client:
        lost = await lose_a_unit(fleet, client)
        await ended(fleet)
        assert (await client.get(lost))["status"] == "failed"
        bad = {line["event"] for line in reaper.lines if line["level"] in {"warning", "error"}}
        # A healthcheck that was just being started when its worker was killed is a survivor.
        assert bad - {"lifecycle.survivors_ended"} == {"lifecycle.swept"}


async def test_the_last_of_two_reapers_is_told_and_a_deep_directory_is_no_hindrance(tmp_path: Path) -> None:
    async with running_fleet(runtime_dir=str(tmp_path / ("deep" * 30)), reap_interval="3600") as fleet:
        fleet.set(redis=f"unix://{fleet.root}/run/queue.sock")
        first = await fleet.reaper()
        second = await fleet.reaper()
        assert await first.stop() == 0
        async with fleet.client() as client:
            worker = await fleet.worker()
            lost = await gated(fleet, client)
            await worker.kill()
            await second.log("lifecycle.swept", lifecycle_id=lost)
