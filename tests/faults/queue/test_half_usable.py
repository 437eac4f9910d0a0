"""Redis that can be used for some things and not for others: said once, and no row waits for ever."""

import asyncio

import pytest

from tests.support.audit import audit
from tests.support.fleet import Daemon, Fleet, gated
from tests.support.queue.redis_server import redis

pytestmark = pytest.mark.anyio

JOBS = "decnet-reaper:-:jobs"


def pairs(daemon: Daemon) -> tuple[int, int]:
    return len(daemon.logged("queue.unreachable")), len(daemon.logged("queue.recovered"))


async def test_a_server_without_zmscore_delivers_all_rows_of_a_decky(fleet: Fleet) -> None:
    """ZMSCORE came with Redis 6.2."""
    await fleet.kill_queue()
    await fleet.start_queue("--rename-command", "ZMSCORE", "")
    await fleet.worker()
    await fleet.reaper()
    async with redis(fleet) as connection, fleet.client() as client:
        ids = [await gated(fleet, client, "decky-a")]
        ids += [
            await client.mutate("decky-a", services=[]),
            await client.deploy("decky-a", fleet.document("decky-a")),
        ]
        lost = await client.deploy("decky-b", fleet.document("decky-b", gate=fleet.gate()))
        await connection.flushall()
        fleet.gate().touch()
        for lifecycle_id in [*ids, lost]:
            assert (await client.wait(lifecycle_id, timeout=60))["status"] == "succeeded"
        assert [pairs(daemon) for daemon in fleet.daemons] == [(0, 0), (0, 0)]
        await audit(fleet, client)
    status, out, _ = await fleet.run("doctor")
    assert "ok   queue" in out, (status, out)


async def test_a_queue_key_of_another_type_is_reported_and_work_goes_on(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with redis(fleet) as connection, fleet.client() as client:
        await gated(fleet, client, "decky-a")
        await connection.delete(JOBS)
        await connection.set(JOBS, "no queue")
        second = await client.deploy("decky-a", fleet.document("decky-a"))
        third = await client.mutate("decky-a", services=[])
        line = await worker.log("queue.unreachable")
        assert "WRONGTYPE" in line["reason"]
        assert "script" not in line["reason"]
        fleet.gate().touch()
        for lifecycle_id in (second, third):
            assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        status, out, _ = await fleet.run("doctor")
        assert (status, "FAIL queue" in out, "WRONGTYPE" in out) == (3, True, True), out
        await connection.delete(JOBS)
        await worker.log("queue.recovered")
        assert pairs(worker) == (1, 1)


async def test_a_reaper_that_cannot_read_the_states_says_so_once_and_enqueues_later(fleet: Fleet) -> None:
    reaper = await fleet.reaper()
    async with redis(fleet) as connection, fleet.client() as client:
        lost = await client.deploy("decky-a", fleet.document("decky-a"))
        await connection.delete(JOBS)
        await connection.set(JOBS, "no queue")
        assert "WRONGTYPE" in (await reaper.log("queue.unreachable"))["reason"]
        for number in range(3):  # as many sweeps more
            probe = {"decky_name": f"probe-{number}", "operation": "deploy", "status": "running"}
            lifecycle_id = await client.repository.create_lifecycle(probe)
            await reaper.log("lifecycle.swept", lifecycle_id=lifecycle_id)
        assert pairs(reaper) == (1, 0)
        await connection.delete(JOBS)
        await reaper.log("lifecycle.redelivered", lifecycle_id=lost)
        await reaper.log("queue.recovered")
        assert pairs(reaper) == (1, 1)
        await fleet.worker()
        assert (await client.wait(lost, timeout=30))["status"] == "succeeded"


async def test_a_full_server_is_one_outage(fleet: Fleet) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with redis(fleet) as connection, fleet.client() as client:
        await connection.config_set("maxmemory", "1")
        await worker.log("queue.unreachable")
        await reaper.log("queue.unreachable")
        accepted = await client.deploy("decky-a", fleet.document("decky-a"))
        assert (await client.wait(accepted, timeout=30))["status"] == "succeeded"
        # As many sweeps of the cron, and of the backstop, as once logged a pair each.
        await asyncio.sleep(8)
        assert (pairs(worker), pairs(reaper)) == ((1, 0), (1, 0))
        await connection.config_set("maxmemory", "0")
        await worker.log("queue.recovered")
        await reaper.log("queue.recovered")
        assert (pairs(worker), pairs(reaper)) == ((1, 1), (1, 1))
        await audit(fleet, client)


async def test_a_server_at_the_edge_of_its_memory_does_not_fill_the_log(fleet: Fleet) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with redis(fleet) as connection:
        for _ in range(10):
            await connection.config_set("maxmemory", "1")
            await asyncio.sleep(1.5)
            await connection.config_set("maxmemory", "0")
            await asyncio.sleep(1.5)
        for daemon in (worker, reaper):
            unreachable, recovered = pairs(daemon)
            assert (unreachable, recovered) == (2, 1)
