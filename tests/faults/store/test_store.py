"""A store that is locked, full, replaced or cut off from power: nothing acknowledged is lost."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from repo.errors import StoreFull, StoreReplaced
from tests.support.audit import audit
from tests.support.fleet import Fleet, accept, gated, wait_status
from tests.support.machine.small_disk import fill, small_disk
from tests.support.store.store_locker import locked_by_another
from tests.support.store.witness import sqlite_only
from worker.liveness.locks import DeckyLocks

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.long)])
async def test_a_store_that_another_process_locks_is_waited_for(fleet: Fleet, seconds: float) -> None:
    reaper = await fleet.set(max_attempts="1").reaper()
    finishing, idle = await fleet.worker(), await fleet.worker()
    async with fleet.client() as client:
        ending = await gated(fleet, client, "decky-a")
        waiting = await client.mutate("decky-a", services=[])
        async with locked_by_another(fleet.settings.database):
            fleet.gate().touch()
            submitted = asyncio.create_task(client.deploy("decky-b", fleet.document("decky-b")))
            await asyncio.sleep(seconds)
            assert not submitted.done()
            assert (await client.get(ending))["status"] == "running"  # readers don't wait
        for lifecycle_id in (ending, waiting, await submitted):
            assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        for daemon in (reaper, finishing, idle):
            assert [line for line in daemon.lines if line["level"] == "error"] == []
        await audit(fleet, client)


@sqlite_only
async def test_a_full_disk_is_said_and_recovered_from_without_a_restart(fleet: Fleet) -> None:
    disk = fleet.root / "disk"
    with small_disk(disk):
        fleet.set(database=str(disk / "store.db"))
        await fleet.make_store()
        worker, reaper = await fleet.worker(), await fleet.reaper()
        async with fleet.client() as client:
            names = [f"decky-{number}" for number in range(3)]
            ids = [await client.deploy(name, fleet.document(name, gate=fleet.gate())) for name in names]
            for lifecycle_id in ids:
                await wait_status(client, lifecycle_id, "running")
            unclaimed = await accept(client, "decky-x", payload={"compose": fleet.document("decky-x")})
            ballast = fill(disk)
            with pytest.raises(StoreFull, match="no space is left"):
                await client.deploy("decky-y", fleet.document("decky-y"))
            fleet.gate().touch()
            line = await worker.log("store.unavailable", count=2)
            assert "no space is left" in line["reason"]
            await reaper.log("reaper.sweep_failed")  # it could not note that it rings for decky-x
            rows = await client.repository.get_lifecycle_by_ids(ids)
            assert {row["status"] for row in rows} == {"running"}  # whoever knows better can't say it yet
            ballast.unlink()
            for lifecycle_id in [*ids, unclaimed]:
                assert (await client.wait(lifecycle_id, timeout=60))["status"] == "succeeded"
            for daemon in (worker, reaper):
                assert daemon.process.returncode is None
                assert daemon.garbage == []
                assert [line for line in daemon.lines if "exception" in line] == []
            await audit(fleet, client)
        for daemon in (worker, reaper):
            assert await daemon.stop() == 0


@sqlite_only
async def test_a_full_disk_makes_nobody_take_its_workers_for_stuck(fleet: Fleet) -> None:
    disk = fleet.root / "disk"
    with small_disk(disk):
        fleet.set(database=str(disk / "store.db"), operation_timeout="4s", overdue_grace="1s")
        await fleet.make_store()
        worker = await fleet.worker()
        async with fleet.client() as client:
            lifecycle_id = await gated(fleet, client)
            holder = DeckyLocks.of(fleet.settings).open("decky-01", None).read()
            assert holder is not None
            ballast = fill(disk)
            fleet.gate().touch()
            swept_until = 0.0
            while swept_until <= holder.deadline + fleet.settings.overdue_grace:
                swept_until = time.monotonic()
                await fleet.run("sweep")
            assert worker.process.returncode is None
            ballast.unlink()
            assert (await client.wait(lifecycle_id, timeout=60))["status"] == "succeeded"
            await audit(fleet, client)


@sqlite_only
async def test_a_store_that_is_replaced_ends_the_daemons_loudly_and_their_next_life_uses_it(
    fleet: Fleet,
) -> None:
    fleet.set(max_attempts="1")
    worker, reaper = await fleet.worker(), await fleet.reaper()
    path = Path(fleet.settings.database)
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client, "decky-a")
        copy = path.with_name("copy.db")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.rename(path)
        for side in ("-wal", "-shm"):
            path.with_name(path.name + side).unlink()
        with pytest.raises(StoreReplaced, match="replaced by another file"):
            await client.deploy("decky-b", fleet.document("decky-b"))
        for daemon in (worker, reaper):
            line = await daemon.log("daemon.failed")
            assert (line["exit_status"], "restart to use what is there now" in line["reason"]) == (3, True)
            assert await daemon.process.wait() == 3
            assert daemon.garbage == []
    await fleet.reaper()
    async with fleet.client() as client:
        row = await client.get(lifecycle_id)
        assert (row["status"], row["error"]) == ("failed", "master restarted during operation")
        await fleet.worker()
        again = await client.deploy("decky-b", fleet.document("decky-b"))
        assert (await client.wait(again, timeout=30))["status"] == "succeeded"
        await audit(fleet, client)
