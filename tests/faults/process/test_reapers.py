"""Reapers killed in the middle of a sweep, and several at once: each row is closed once and told."""

import asyncio
from datetime import UTC, datetime

import pytest

from repo.repository.ids import new_id
from tests.support.audit import audit
from tests.support.fleet import Daemon, Fleet
from tests.support.store.stores import store_at
from worker.client import LifecycleClient
from worker.liveness.lock_directory import find_lock_directory
from worker.logging.emit import emit

pytestmark = pytest.mark.anyio

DEAD = "elsewhere/an-earlier-boot/1/1/00000000/0123"


async def orphans(fleet: Fleet, client: LifecycleClient, count: int) -> set[str]:
    """Running rows of so many deckies, whose worker is gone."""
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    ids = [new_id() for _ in range(count)]
    with store_at(fleet.settings.database).shell() as shell:
        shell.execute("BEGIN")
        for number, lifecycle_id in enumerate(ids):
            decky = {"id": lifecycle_id, "decky_name": f"decky-{number:05}", "operation": "deploy"}
            shell.insert(**decky, status="pending", started_at=moment, updated_at=moment)
            shell.execute(
                "UPDATE decky_lifecycle SET status = 'running', claimed_at = :moment, owner = :owner"
                " WHERE id = :id",
                {"moment": moment, "owner": DEAD, "id": lifecycle_id},
            )
        shell.execute("COMMIT")
    for row in await client.repository.list_lifecycles(limit=count):
        emit("lifecycle.accepted", row, started_at=row["started_at"])
    return set(ids)


async def all_closed(client: LifecycleClient, daemon: Daemon) -> None:
    async with asyncio.timeout(120):
        while await client.repository.list_open_lifecycles():
            assert daemon.process.returncode is None
            await asyncio.sleep(0.05)
    assert await daemon.stop() == 0


def swept(fleet: Fleet) -> list[str]:
    return [line["lifecycle_id"] for line in fleet.lines() if line["event"] == "lifecycle.swept"]


async def test_reapers_killed_in_the_middle_of_ten_thousand_rows(fleet: Fleet) -> None:
    fleet.set(max_attempts="1")
    kills = (1, 1_500, 3_000)
    async with fleet.client() as client:
        ids = await orphans(fleet, client, 10_000)
        for lines in kills:
            reaper = await fleet.start("reaper")
            await reaper.log("lifecycle.swept", count=lines)
            await reaper.kill()
        assert await client.repository.list_open_lifecycles()
        await all_closed(client, await fleet.reaper())
        assert set(swept(fleet)) == ids
        # One that was killed between a line and its note of it has that line told again.
        assert len(swept(fleet)) <= len(ids) + len(kills)
        await audit(fleet, client)


async def test_two_reapers_at_once_close_each_row_once(fleet: Fleet) -> None:
    fleet.set(max_attempts="1")
    async with fleet.client() as client:
        ids = await orphans(fleet, client, 2_000)
        both = await asyncio.gather(fleet.start("reaper"), fleet.start("reaper"))
        for reaper in both:
            await reaper.log("reaper.started")
        for reaper in both:
            await all_closed(client, reaper)
        assert sorted(swept(fleet)) == sorted(ids)
        await audit(fleet, client)


async def test_an_end_that_a_killed_worker_could_not_tell_is_told_by_the_reaper(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"))
        row = await client.wait(lifecycle_id, timeout=30)
        await worker.log("lifecycle.succeeded")
        await worker.kill()
        # As if it had been killed a moment sooner: the end is committed, its line is not out.
        worker.lines = [line for line in worker.lines if line["event"] != "lifecycle.succeeded"]
        (notes,) = (find_lock_directory(fleet.settings) / "unreported").iterdir()
        notes.write_text(f"{lifecycle_id} succeeded\n")
        reaper = await fleet.reaper()
        line = await reaper.log("lifecycle.succeeded", lifecycle_id=lifecycle_id)
        assert (line["owner"], line["error"]) == (row["owner"], None)
        assert not notes.exists()
        await audit(fleet, client)
