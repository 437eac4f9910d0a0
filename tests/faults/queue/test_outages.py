"""Redis that goes away, freezes, refuses, forgets or lies: nothing is lost, nothing runs twice."""

import asyncio
import pickle
import signal

import pytest

from tests.support.audit import audit
from tests.support.fleet import Daemon, Fleet, accept, gated
from tests.support.queue.redis_server import redis
from tests.support.store.store_locker import locked_by_another
from worker.client import LifecycleClient
from worker.queue import Delivery, Queue

pytestmark = pytest.mark.anyio

outages = pytest.mark.parametrize("outage_s", [0, pytest.param(30, marks=pytest.mark.long)])
"""For how long at least Redis stays as it is; the long one outlives every timeout and pause on the way."""


async def submit(fleet: Fleet, client: LifecycleClient, count: int, prefix: str = "decky") -> list[str]:
    names = [f"{prefix}-{number:04}" for number in range(count)]
    return list(await asyncio.gather(*(client.deploy(name, fleet.document(name)) for name in names)))


async def all_succeeded(client: LifecycleClient, ids: list[str]) -> None:
    for lifecycle_id in ids:
        row = await client.wait(lifecycle_id, timeout=120)
        assert row["status"] == "succeeded", row["error"]


async def said_once(*daemons: Daemon) -> None:
    """Each daemon lives, and has one line of the outage's beginning and one of its end."""
    for daemon in daemons:
        await daemon.log("queue.recovered")
        assert len(daemon.logged("queue.unreachable")) == len(daemon.logged("queue.recovered")) == 1
        assert daemon.process.returncode is None


@outages
async def test_redis_killed_and_replaced_by_an_empty_one(fleet: Fleet, outage_s: float) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        flying = await gated(fleet, client, "decky-a")
        await fleet.kill_queue()
        await worker.log("queue.unreachable")
        await reaper.log("queue.unreachable")
        ids = await submit(fleet, client, 20)
        fleet.gate().touch()
        await all_succeeded(client, [flying, *ids])
        await asyncio.sleep(outage_s)
        ids = await submit(fleet, client, 20, "late")
        await fleet.start_queue()
        await all_succeeded(client, ids)
        await said_once(worker, reaper)
        await audit(fleet, client)


@outages
async def test_redis_frozen_and_thawed(fleet: Fleet, outage_s: float) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        flying = await gated(fleet, client, "decky-a")
        assert fleet.queue is not None
        fleet.queue.send_signal(signal.SIGSTOP)
        accepted = await client.deploy("decky-b", fleet.document("decky-b"))
        fleet.gate().touch()
        assert (await client.wait(flying, timeout=30))["status"] == "succeeded"
        await worker.log("queue.unreachable")
        await reaper.log("queue.unreachable")
        await asyncio.sleep(outage_s)
        fleet.queue.send_signal(signal.SIGCONT)
        assert (await client.wait(accepted, timeout=60))["status"] == "succeeded"
        await said_once(worker, reaper)
        await audit(fleet, client)


@outages
async def test_redis_read_only_and_writable_again(fleet: Fleet, outage_s: float) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with redis(fleet) as connection, fleet.client() as client:
        await connection.slaveof("127.0.0.1", 1)
        await worker.log("queue.unreachable")
        await reaper.log("queue.unreachable")
        accepted = await client.deploy("decky-a", fleet.document("decky-a"))
        await asyncio.sleep(outage_s)
        await connection.slaveof()
        assert (await client.wait(accepted, timeout=60))["status"] == "succeeded"
        await said_once(worker, reaper)
        await audit(fleet, client)


@outages
async def test_a_wrong_password_and_then_the_right_one(fleet: Fleet, outage_s: float) -> None:
    worker = await fleet.worker()
    reaper = await fleet.reaper()
    async with redis(fleet) as connection, fleet.client() as client:
        await connection.config_set("requirepass", "hunter2")
        await connection.client_kill_filter(_type="normal", skipme=True)
        line = await worker.log("queue.unreachable")
        await reaper.log("queue.unreachable")
        assert "hunter2" not in str(line)
        accepted = await client.deploy("decky-a", fleet.document("decky-a"))
        await asyncio.sleep(outage_s)
        await connection.config_set("requirepass", "")
        assert (await client.wait(accepted, timeout=60))["status"] == "succeeded"
        await said_once(worker, reaper)
        await audit(fleet, client)


async def test_a_flush_with_a_thousand_pending_rows_runs_each_once(fleet: Fleet) -> None:
    reaper = await fleet.reaper()
    async with redis(fleet) as connection, fleet.client() as client:
        # until a sweep has read the queue's states once, it takes what is not there yet for lost
        first = await accept(client, "first", status="running")
        await reaper.log("lifecycle.swept", lifecycle_id=first)
        ids: list[str] = []
        queue = Queue(fleet.settings.redis)
        for start in range(0, 1000, 100):
            rows = [
                {
                    "decky_name": f"decky-{number:04}",
                    "operation": "mutate",
                    "payload": {"services": []},
                    "deliveries": 1,
                }
                for number in range(start, start + 100)
            ]
            accepted = await asyncio.gather(*(client.repository.create_lifecycle(row) for row in rows))
            rows_accepted = await client.repository.get_lifecycle_by_ids(accepted)
            await queue.enqueue([*map(Delivery.latest, rows_accepted)])
            ids += accepted
        await connection.flushall()
        await reaper.log("reaper.swept", redelivered=1000)
        await reaper.log("lifecycle.redelivered", count=1000)
        assert await queue.depth() == 1000
        # A long queue is left alone: the next sweeps enqueue nothing again.
        probe = await client.repository.create_lifecycle(
            {"decky_name": "probe", "operation": "deploy", "status": "running"}
        )
        await reaper.log("lifecycle.swept", lifecycle_id=probe)
        enqueued = [line["lifecycle_id"] for line in reaper.logged("lifecycle.redelivered")]
        assert sorted(each for each in enqueued if each != probe) == sorted(ids)
        await fleet.worker()
        worker = fleet.daemons[-1]
        ended = [await client.wait(lifecycle_id, timeout=120) for lifecycle_id in ids]
        # Nothing was ever deployed there, so each run ends at once, and truthfully.
        assert {row["error"] for row in ended} == {
            f"{row['decky_name']} has no deployed document: deploy it first" for row in ended
        }
        ran = [line["lifecycle_id"] for line in worker.logged("lifecycle.running")]
        assert sorted(run_id for run_id in ran if run_id in set(ids)) == sorted(ids)
        await queue.close()


async def test_deliveries_that_are_doubled_unknown_or_garbage(fleet: Fleet) -> None:
    worker = await fleet.worker()
    bomb = fleet.root / "bomb"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (str(bomb),)

    async with redis(fleet) as connection, fleet.client() as client:
        queue = Queue(fleet.settings.redis)
        await queue.enqueue([Delivery("no-such-id", 1, None, "deploy", "decky-a")])
        await worker.log("lifecycle.unknown", lifecycle_id="no-such-id")
        garbage = {
            "pickle": pickle.dumps({"f": "deploy", "a": (Bomb(),)}),
            "noise": b"\xff\x00{",
            "empty": b"",
        }
        for name, body in garbage.items():
            await connection.set(f"arq:job:{name}", body)
            await connection.zadd("decnet-reaper:-:jobs", {name: 1})
        for name in garbage:
            await worker.log("queue.job_refused", job_id=name)
        lifecycle_id = await gated(fleet, client, "decky-a")
        await queue.enqueue(
            [Delivery(lifecycle_id, number, None, "deploy", "decky-a") for number in (1, 1, 2, 3)]
        )
        fleet.gate().touch()
        assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        assert len(worker.logged("lifecycle.running", lifecycle_id=lifecycle_id)) == 1
        assert {len(worker.logged("queue.job_refused", job_id=name)) for name in garbage} == {1}
        assert not bomb.exists()
        assert worker.garbage == []
        await queue.close()
        await audit(fleet, client)


async def test_a_row_committed_by_a_master_that_died_before_it_rang_is_delivered(fleet: Fleet) -> None:
    await fleet.worker()
    reaper = await fleet.reaper()
    async with fleet.client() as client:
        payload = {"compose": fleet.document("decky-a")}
        lifecycle_id, _ = await client.repository.submit_lifecycle(
            {"decky_name": "decky-a", "operation": "deploy", "payload": payload}
        )
        assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        await reaper.log("lifecycle.redelivered", lifecycle_id=lifecycle_id, delivery=1)


async def test_a_job_picked_by_a_worker_that_died_before_its_claim_is_rung_again(fleet: Fleet) -> None:
    reaper = await fleet.reaper()
    async with redis(fleet) as connection, fleet.client() as client:
        lifecycle_id = await client.deploy("decky-a", fleet.document("decky-a"))
        # What such a worker leaves behind: the job is taken, for as long as arq believes in its worker.
        await connection.set(f"arq:in-progress:-:{lifecycle_id}.1", "somebody", ex=310)
        await fleet.worker()
        row = await client.wait(lifecycle_id, timeout=30)
        assert row["status"] == "succeeded"
        await reaper.log("lifecycle.redelivered", lifecycle_id=lifecycle_id, delivery=2)
        await audit(fleet, client)


async def test_a_worker_killed_between_pick_and_claim_leaves_a_row_that_is_rung_again(fleet: Fleet) -> None:
    victim = await fleet.worker()
    async with redis(fleet) as connection, fleet.client() as client:
        victim.signal(signal.SIGSTOP)
        lifecycle_id = await client.deploy("decky-a", fleet.document("decky-a"))
        async with locked_by_another(fleet.settings.database):
            victim.signal(signal.SIGCONT)
            while not await connection.exists(f"arq:in-progress:-:{lifecycle_id}.1"):
                await asyncio.sleep(0.01)
            await victim.kill()
        assert (await client.get(lifecycle_id))["status"] == "pending"
        assert await connection.ttl(f"arq:in-progress:-:{lifecycle_id}.1") > 100
        await fleet.worker()
        reaper = await fleet.reaper()
        assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        await reaper.log("lifecycle.redelivered", lifecycle_id=lifecycle_id, delivery=2)
        await audit(fleet, client)
