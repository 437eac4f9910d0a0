"""Redis behind Sentinel: its master dies, freezes or loses what was just written, and work goes on."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.audit import audit
from tests.support.fleet import Fleet, gated, running_fleet
from tests.support.queue.redis_programs import HOST, SentinelSetup

pytestmark = pytest.mark.anyio


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[SentinelSetup]:
    setup = SentinelSetup(tmp_path)
    try:
        await setup.ready()
        yield setup
    finally:
        setup.kill()


@pytest.fixture
async def fleet(setup: SentinelSetup) -> AsyncIterator[Fleet]:
    async with running_fleet(redis=setup.dsn) as fleet:
        yield fleet


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_failover_interrupts_no_work(fleet: Fleet, setup: SentinelSetup, how: signal.Signals) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        flying = await gated(fleet, client, "decky-a")
        setup.master.signal(how)
        during = [await client.deploy(f"decky-{n}", fleet.document(f"decky-{n}")) for n in range(5)]
        fleet.gate().touch()
        for lifecycle_id in [flying, *during]:
            assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        await setup.promoted(setup.replica)
        await worker.log("queue.recovered")
        await reaper.log("queue.recovered")
        after = await client.deploy("decky-z", fleet.document("decky-z"))
        assert (await client.wait(after, timeout=30))["status"] == "succeeded"
        for daemon in (worker, reaper):
            assert len(daemon.logged("queue.unreachable")) == len(daemon.logged("queue.recovered")) == 1
        await audit(fleet, client)


async def test_jobs_that_the_replica_never_got_are_enqueued_again(fleet: Fleet, setup: SentinelSetup) -> None:
    reaper = await fleet.reaper()
    async with fleet.client() as client, setup.replica.client() as replica:
        # What is acknowledged from now on dies with the master.
        await replica.replicaof(HOST, 1)
        lost = [await client.deploy(f"decky-{n}", fleet.document(f"decky-{n}")) for n in range(5)]
        async with setup.master.client() as master:
            while await master.zcard("decnet-reaper:-:jobs") < len(lost):
                await asyncio.sleep(0.01)
        setup.master.kill()
        await setup.promoted(setup.replica)
        for lifecycle_id in lost:
            await reaper.log("lifecycle.redelivered", lifecycle_id=lifecycle_id)
        assert await replica.zcard("decnet-reaper:-:jobs") == len(lost)
        await fleet.worker()
        for lifecycle_id in lost:
            assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        await audit(fleet, client)


async def test_a_minority_of_sentinels_dead_changes_nothing(fleet: Fleet, setup: SentinelSetup) -> None:
    setup.sentinels[0].kill()
    worker = await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-a", fleet.document("decky-a"))
        assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
    assert worker.logged("queue.unreachable") == []
    assert (await fleet.run("doctor"))[1].count(f"ok   queue    {setup.dsn}?db=0") == 1
