"""Clocks that are set, and time that stands still: nothing alive is swept, nothing dead is missed."""

import asyncio
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from reaper.sweep.ages import Ages
from tests.support.audit import audit
from tests.support.fleet import Daemon, Fleet, accept, gated, wait_status
from tests.support.machine.wall_clock import WallClock, find_libfaketime
from tests.support.needs import lacking
from worker.client import LifecycleClient

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clocks:
    """A wall clock to set and a steady one, both only as the test says."""

    def __init__(self) -> None:
        self.wall = NOON
        self.steady = 1000.0
        self.ages = Ages(lambda: self.wall, lambda: self.steady)

    def run(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds

    def age(self, key: str, since: datetime) -> float:
        return self.ages.age(key, since.isoformat())


@pytest.mark.parametrize("days", [1, -1])
def test_a_row_s_age_grows_with_the_steady_clock_only(days: int) -> None:
    clocks = Clocks()
    clocks.run(5)
    assert clocks.age("a", NOON) == 5
    clocks.ages.keep(["a"])
    clocks.wall += timedelta(days=days)
    clocks.run(2)
    assert clocks.age("a", NOON) == 7


@pytest.mark.parametrize("days", [1, -1])
def test_a_row_accepted_just_before_the_clock_was_set_is_young(days: int) -> None:
    clocks = Clocks()
    clocks.ages.keep([])
    clocks.run(1)
    accepted = clocks.wall
    clocks.wall += timedelta(days=days)
    clocks.run(1)
    assert clocks.age("a", accepted) <= 2
    assert clocks.age("b", clocks.wall) == 0


def test_a_row_that_was_set_back_by_its_writer_is_old() -> None:
    clocks = Clocks()
    clocks.ages.keep([])
    clocks.run(1)
    assert clocks.age("a", NOON - timedelta(hours=2)) == 7201


async def passes(reaper: Daemon, client: LifecycleClient, tag: str, count: int) -> float:
    """So many passes of the reaper that did something; seconds until the last."""
    begun = time.monotonic()
    for number in range(count):
        probe = await accept(client, f"probe-{tag}-{number}", status="running")
        await reaper.log("lifecycle.swept", lifecycle_id=probe)
    return time.monotonic() - begun


@pytest.mark.parametrize("offset", ["+1d", "-1d"])
async def test_a_wall_clock_that_is_set_sweeps_nobody_and_stops_nothing(fleet: Fleet, offset: str) -> None:
    fleet.set(max_attempts="1")
    reap_interval = fleet.settings.reap_interval
    clock = WallClock(fleet.root / "clock", find_libfaketime() or lacking("libfaketime"))
    worker = await fleet.worker(**clock.environment)
    reaper = await fleet.reaper(**clock.environment)
    async with fleet.client() as client:
        alive = await gated(fleet, client, "decky-a")
        waiting = await client.mutate("decky-a", services=[])
        await passes(reaper, client, "before", 1)
        clock.set(offset)
        took = await passes(reaper, client, "after", 5)
        assert took >= 4 * reap_interval / 2, "the missed ticks of a day were made up for"
        told = datetime.fromisoformat(reaper.lines[-1]["timestamp"])
        assert abs(told - datetime.now(UTC)) > timedelta(hours=23), "the clock was not set"
        assert [(await client.get(row))["status"] for row in (alive, waiting)] == ["running", "pending"]
        fleet.gate().touch()
        for row in (alive, waiting):
            assert (await client.wait(row, timeout=30))["status"] == "succeeded"
        clock.set("+0")  # as the master's is all the time: to a reaper a day ahead its rows are a day old
        last = await client.deploy("decky-b", fleet.document("decky-b", gate=fleet.gate("never")))
        await wait_status(client, last, "running")
        await worker.kill()
        assert (await client.wait(last, timeout=30))["error"] == "worker died during operation"
        assert reaper.process.returncode is None
        await audit(fleet, client)


async def test_a_machine_that_is_suspended_goes_on_where_it_was(fleet: Fleet) -> None:
    reaper, worker = await fleet.reaper(), await fleet.worker()
    async with fleet.client() as client:
        running = await gated(fleet, client, "decky-a")
        waiting = await client.mutate("decky-a", services=[])
        assert fleet.queue is not None
        pids = [fleet.queue.pid, reaper.pid, worker.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(3)  # longer than every interval: that is the fault
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        await passes(reaper, client, "after", 2)
        assert (await client.get(running))["status"] == "running"
        fleet.gate().touch()
        for row in (running, waiting):
            assert (await client.wait(row, timeout=30))["status"] == "succeeded"
        assert reaper.logged("lifecycle.swept", decky_name="decky-a") == []
        await audit(fleet, client)
