"""While Redis is away work goes on: what is submitted runs within two seconds, and nothing runs twice."""

import asyncio
import signal
import sys

import pytest
from redis.asyncio import Redis

from tests.support.audit import audit
from tests.support.fleet import Fleet, gated

pytestmark = pytest.mark.anyio

SOON_S = 2.0


@pytest.mark.parametrize("how", ["killed", "frozen", "read-only"])
async def test_a_submit_in_an_outage_runs_soon_and_once(fleet: Fleet, how: str) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        before = await client.deploy("decky-0", fleet.document("decky-0"))
        assert (await client.wait(before, timeout=30))["status"] == "succeeded"
        assert fleet.queue is not None
        connection = Redis(unix_socket_path=str(fleet.socket))
        if how == "killed":
            await fleet.kill_queue()
        elif how == "frozen":
            fleet.queue.send_signal(signal.SIGSTOP)
        else:
            await connection.replicaof("127.0.0.1", 1)
        ids = []
        for number in range(1, 6):
            ids.append(await client.deploy(f"decky-{number}", fleet.document(f"decky-{number}")))
            line = await worker.log("lifecycle.running", lifecycle_id=ids[-1])
            assert line["queue_wait_s"] < SOON_S
            await client.wait(ids[-1], timeout=30)
        if how == "killed":
            await fleet.start_queue()
        elif how == "frozen":
            fleet.queue.send_signal(signal.SIGCONT)
        else:
            await connection.replicaof("NO", "ONE")
        await connection.aclose()
        await worker.log("queue.recovered")
        await reaper.log("queue.recovered")
        after = await client.deploy("decky-z", fleet.document("decky-z"))
        assert (await client.wait(after, timeout=30))["status"] == "succeeded"
        for lifecycle_id in [before, *ids, after]:
            assert len(worker.logged("lifecycle.running", lifecycle_id=lifecycle_id)) == 1
        await audit(fleet, client)


async def test_two_workers_share_what_waits_and_run_each_row_once(fleet: Fleet) -> None:
    workers = [await fleet.worker(), await fleet.worker()]
    async with fleet.client() as client:
        await fleet.kill_queue()
        names = [f"decky-{number:02}" for number in range(20)]
        ids = await asyncio.gather(*(client.deploy(name, fleet.document(name)) for name in names))
        second = [await client.mutate(name, services=[]) for name in names[:5]]
        for lifecycle_id in [*ids, *second]:
            assert (await client.wait(lifecycle_id, timeout=60))["status"] == "succeeded"
        for lifecycle_id in [*ids, *second]:
            assert (
                sum(len(each.logged("lifecycle.running", lifecycle_id=lifecycle_id)) for each in workers) == 1
            )
        await fleet.start_queue()
        for worker in workers:
            await worker.log("queue.recovered")
        await audit(fleet, client)


async def test_no_more_than_free_slots_are_taken_in_the_order_of_acceptance(fleet: Fleet) -> None:
    worker = await fleet.set(max_jobs="2").worker()
    async with fleet.client() as client:
        await fleet.kill_queue()
        await worker.log("queue.unreachable")
        first = await gated(fleet, client, "decky-a")
        second = await gated(fleet, client, "decky-b")
        waiting = [await client.deploy(f"decky-{name}", fleet.document(f"decky-{name}")) for name in "cd"]
        with pytest.raises(TimeoutError):
            await client.wait(waiting[0], timeout=2.5)
        assert {(await client.get(each))["status"] for each in waiting} == {"pending"}
        fleet.gate().touch()
        for lifecycle_id in (first, second, *waiting):
            assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        ran = [line["lifecycle_id"] for line in worker.logged("lifecycle.running")]
        assert ran == [first, second, *waiting]
        assert await worker.stop() == 0


async def test_another_host_s_rows_are_left_alone(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        await fleet.kill_queue()
        theirs = await client.deploy("decky-a", fleet.document("decky-a"), host_uuid="h1")
        ours = await client.deploy("decky-b", fleet.document("decky-b"))
        assert (await client.wait(ours, timeout=30))["status"] == "succeeded"
        assert (await client.get(theirs))["status"] == "pending"
        assert worker.logged("lifecycle.running", lifecycle_id=theirs) == []


async def test_a_row_that_cannot_be_run_keeps_no_other_waiting(fleet: Fleet) -> None:
    """The lock of the first in line is held by what is no operation: its row waits, the next one runs."""
    worker = await fleet.set(max_jobs="1").worker()
    async with fleet.client() as client:
        await fleet.kill_queue()
        await worker.log("queue.unreachable")
        held = await held_lock(fleet, "decky-a")
        stuck = await client.deploy("decky-a", fleet.document("decky-a"))
        free = await client.deploy("decky-b", fleet.document("decky-b"))
        assert (await client.wait(free, timeout=30))["status"] == "succeeded"
        assert (await client.get(stuck))["status"] == "pending"
        held.kill()
        await held.wait()
        assert (await client.wait(stuck, timeout=30))["status"] == "succeeded"


async def held_lock(fleet: Fleet, decky_name: str) -> asyncio.subprocess.Process:
    """A process that holds a decky's lock, and is no worker."""
    code = f"""
import sys
from worker.liveness.locks import DeckyLocks
from worker.settings import WorkerSettings, load
lock = DeckyLocks.of(load(WorkerSettings)).try_lock({decky_name!r}, None)
print("held", flush=True)
sys.stdin.read()
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env=fleet.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    return process
