"""Workers that are killed, stopped, stuck or told to go: what must come out for their rows."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.support.audit import audit, unlocked
from tests.support.fleet import Daemon, Fleet, accept, gated, running_fleet, wait_status
from tests.support.survivor import surviving_compose
from worker.client import LifecycleClient
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.logging.emit import emit_end

pytestmark = pytest.mark.anyio


async def two_passes(reaper: Daemon, client: LifecycleClient, lifecycle_id: str) -> None:
    """Two whole passes of the reaper, told by a row that each of them closes."""
    for number in range(2):
        probe = await accept(client, f"probe-{lifecycle_id[-12:]}-{number}", status="running")
        await reaper.log("lifecycle.swept", lifecycle_id=probe)


async def test_a_killed_worker_s_row_is_closed_and_retried_on_another(fleet: Fleet) -> None:
    reaper = await fleet.reaper()
    first = await fleet.worker()
    async with fleet.client() as client:
        lost = await gated(fleet, client)
        second = await fleet.worker()
        await first.kill()
        row = await client.wait(lost, timeout=30)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation")
        line = await reaper.log("lifecycle.swept", lifecycle_id=lost)
        retry = await wait_status(client, line["retry_id"], "running")
        assert (retry["retry_of"], retry["attempt"]) == (lost, 2)
        assert f"/{second.pid}/" in (retry["owner"] or "")
        fleet.gate().touch()
        assert (await client.wait(retry["id"], timeout=30))["status"] == "succeeded"
        await audit(fleet, client)


async def test_the_last_attempt_is_not_repeated(fleet: Fleet) -> None:
    reaper = await fleet.set(max_attempts="1").reaper()
    worker = await fleet.worker()
    async with fleet.client() as client:
        lost = await gated(fleet, client)
        await worker.kill()
        await client.wait(lost, timeout=30)
        assert (await reaper.log("lifecycle.swept", lifecycle_id=lost))["retry_id"] is None
        assert len(await client.repository.list_lifecycles()) == 1
        await audit(fleet, client)


async def test_the_retry_runs_before_what_was_accepted_later(fleet: Fleet) -> None:
    await fleet.reaper()
    worker = await fleet.worker()
    async with fleet.client() as client:
        lost = await gated(fleet, client)
        later = await client.mutate("decky-01", services=[])
        await worker.kill()
        fleet.gate().touch()
        await fleet.worker()
        assert (await client.wait(later, timeout=30))["status"] == "succeeded"
        retry = next(row for row in await client.repository.list_lifecycles() if row["retry_of"] == lost)
        assert retry["status"] == "succeeded"
        assert lost < retry["id"] < later
        assert str(retry["completed_at"]) <= str((await client.get(later))["claimed_at"])
        await audit(fleet, client)


async def test_a_worker_that_died_while_no_reaper_ran_is_a_restarted_master_and_needs_no_redis(
    fleet: Fleet,
) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        lost = await gated(fleet, client)
        await worker.kill()
        await fleet.kill_queue()
        reaper = await fleet.reaper()
        row = await client.get(lost)
        assert (row["status"], row["error"]) == ("failed", "master restarted during operation")
        await fleet.start_queue()
        await reaper.log("lifecycle.redelivered")
        await audit(fleet, client)


async def of_an_earlier_boot(client: LifecycleClient, lifecycle_id: str) -> None:
    """Make a row one that was claimed before a reboot; its lock file stays, and nobody holds it."""
    owner = Owner.parse((await client.get(lifecycle_id))["owner"])
    assert owner is not None
    await client.repository.update_lifecycle(lifecycle_id, {"owner": str(owner._replace(boot="earlier"))})


async def test_a_reboot_empties_the_runtime_directory_and_closes_every_running_row(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        ids = [await gated(fleet, client, f"decky-{number:02}") for number in range(5)]
        await worker.kill()
        await fleet.kill_queue()
        for lifecycle_id in ids:
            await of_an_earlier_boot(client, lifecycle_id)
        reaper = await fleet.reaper()
        rows = await client.repository.get_lifecycle_by_ids(ids)
        assert {row["error"] for row in rows} == {"master restarted during operation"}
        await fleet.start_queue()
        await reaper.log("lifecycle.redelivered", count=5)
        await audit(fleet, client)


async def test_a_stopped_worker_is_never_swept_and_finishes(fleet: Fleet) -> None:
    reaper = await fleet.reaper()
    worker = await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        worker.signal(signal.SIGSTOP)
        fleet.gate().touch()
        await two_passes(reaper, client, lifecycle_id)
        assert (await client.get(lifecycle_id))["status"] == "running"
        worker.signal(signal.SIGCONT)
        assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        assert reaper.logged("lifecycle.swept", lifecycle_id=lifecycle_id) == []
        await audit(fleet, client)


HOLDER = """
import sys, time
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.logging.emit import emit_end
from worker.settings import WorkerSettings, load
with DeckyLocks.of(load(WorkerSettings)).try_lock("decky-01", None):
    print("held", flush=True)
    sys.stdin.read()
"""


async def test_whoever_holds_the_lock_of_an_orphan_in_its_own_right_is_left_alone(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        lost = await gated(fleet, client)
        await worker.kill()
        # Another worker on its way to a claim that will be refused, or another reaper, looks like this.
        other = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLDER),
            env=fleet.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert other.stdout is not None
            assert await other.stdout.readline() == b"held\n"
            reaper = await fleet.reaper()
            await two_passes(reaper, client, lost)
            assert (await client.get(lost))["status"] == "running"
            assert other.returncode is None
        finally:
            await other.communicate(b"")
        assert (await client.wait(lost, timeout=30))["error"] == "worker died during operation"
        await audit(fleet, client)


async def test_a_late_write_changes_nothing_and_is_told(fleet: Fleet) -> None:
    await fleet.set(max_attempts="1").reaper()
    worker = await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        worker.signal(signal.SIGSTOP)
        fleet.gate().touch()
        # Lost by force: whoever can write the store can write anything.
        ended = await client.repository.end_lifecycle(
            lifecycle_id,
            outcome="swept",
            owner=(await client.get(lifecycle_id))["owner"],
            error="worker died during operation",
        )
        assert ended.applied
        swept = await client.get(lifecycle_id)
        emit_end(swept, "swept", error=swept["error"])
        worker.signal(signal.SIGCONT)
        line = await worker.log("lifecycle.late_write_refused")
        assert (line["lifecycle_id"], line["status"]) == (lifecycle_id, "succeeded")
        assert await client.get(lifecycle_id) == swept
        assert worker.logged("lifecycle.succeeded") == []
        await audit(fleet, client)


async def test_a_worker_that_does_not_respond_past_its_deadline_is_ended() -> None:
    async with running_fleet(operation_timeout="4s", overdue_grace="4s", max_attempts="1") as fleet:
        reaper = await fleet.reaper()
        worker = await fleet.worker()
        async with fleet.client() as client:
            lifecycle_id = await gated(fleet, client)
            worker.signal(signal.SIGSTOP)
            await reaper.log("lifecycle.overdue", lifecycle_id=lifecycle_id)
            assert (await client.get(lifecycle_id))["status"] == "running"
            row = await client.wait(lifecycle_id, timeout=30)
            await audit(fleet, client)
        assert (row["status"], row["error"]) == ("failed", "timed out after 4 s")
        assert await worker.process.wait() == -signal.SIGKILL
        assert len(reaper.logged("lifecycle.overdue")) == 1


async def test_an_operation_past_its_deadline_is_ended_by_its_worker() -> None:
    async with running_fleet(operation_timeout="500ms") as fleet:
        worker = await fleet.worker()
        async with fleet.client() as client:
            gate = fleet.gate()  # its worker may end it before anybody sees that it runs
            lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01", gate=gate))
            row = await client.wait(lifecycle_id, timeout=30)
            await audit(fleet, client)
        assert (row["status"], row["error"]) == ("failed", "timed out after 0.5 s")
        await worker.log("lifecycle.timed_out", retry_id=None)


async def test_a_worker_told_to_stop_finishes_what_it_can_and_ends_the_rest() -> None:
    async with running_fleet(stop_grace="10s") as fleet:
        worker = await fleet.worker()
        async with fleet.client() as client:
            quick = fleet.document("decky-01", gate=fleet.gate("quick"))
            finishing = await client.deploy("decky-01", quick)
            endless = await client.deploy("decky-02", fleet.document("decky-02", gate=fleet.gate()))
            waiting = await client.mutate("decky-02", services=[])
            for begun in (finishing, endless):
                await worker.log("lifecycle.running", lifecycle_id=begun)
            worker.signal(signal.SIGTERM)
            await worker.log("worker.stopping", running=2)
            fleet.gate("quick").touch()
            assert await worker.stop() == 0
            assert (await client.get(finishing))["status"] == "succeeded"
            row = await client.get(endless)
            assert (row["status"], row["error"]) == ("failed", "worker stopped during operation")
            assert (await client.get(waiting))["status"] == "pending"
            retry = (await worker.log("lifecycle.interrupted"))["retry_id"]
            fleet.gate().touch()
            await fleet.worker()
            assert (await client.wait(retry, timeout=30))["attempt"] == 2
            assert (await client.wait(waiting, timeout=30))["status"] == "succeeded"
            await audit(fleet, client)


async def test_survivors_of_a_killed_worker_are_ended_and_nobody_else() -> None:
    async with running_fleet(max_attempts="1") as fleet:
        note = surviving_compose(fleet)
        innocent = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
        try:
            worker = await fleet.worker()
            async with fleet.client() as client:
                lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"))
                await wait_status(client, lifecycle_id, "running")
                survivor = await note()
                await worker.kill()
                assert Path(f"/proc/{survivor}").exists()
                assert (await client.get(lifecycle_id))["status"] == "running"
                reaper = await fleet.reaper()
                row = await client.wait(lifecycle_id, timeout=30)
                assert row["status"] == "failed"
                line = await reaper.log("lifecycle.survivors_ended", lifecycle_id=lifecycle_id)
                assert survivor in line["pids"]
                holders = {hold.pid for hold in DeckyLocks.of(fleet.settings).holders("decky-01", None)}
                assert holders <= {reaper.pid}
                await unlocked(fleet, "decky-01")
                await audit(fleet, client)
            assert innocent.returncode is None
        finally:
            innocent.kill()
            await innocent.wait()
