"""Who gets a decky's lock, and who is rung next."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from repo.base import BaseRepository, Lifecycle
from repo.factory import get_repository
from worker.execution.order import take_lock_in_order
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.locks import DeckyLock, DeckyLocks, Holder

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BaseRepository]:
    async with get_repository(db_path=tmp_path / "store.db") as repository:
        yield repository


@pytest.fixture
def locks(tmp_path: Path) -> DeckyLocks:
    return DeckyLocks(LockDirectory(tmp_path))


async def accepted(store: BaseRepository) -> Lifecycle:
    lifecycle_id = await store.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
    row = await store.get_lifecycle(lifecycle_id)
    assert row is not None
    return row


async def at_work(store: BaseRepository, locks: DeckyLocks) -> tuple[Lifecycle, DeckyLock]:
    row = await accepted(store)
    lock = locks.try_lock("decky-01", None)
    assert lock is not None
    lock.write(Holder(row["id"], "somebody", time.monotonic() + 3600))
    assert await store.claim_lifecycle(row["id"], "somebody")
    return row, lock


async def test_a_holder_that_still_runs_sees_the_next_row_when_it_ends(
    store: BaseRepository, locks: DeckyLocks
) -> None:
    first, lock = await at_work(store, locks)
    with lock:
        second = await accepted(store)
        assert await take_lock_in_order(store, locks, second["decky_name"], second["host_uuid"]) is None
        assert (await store.end_lifecycle(first["id"], outcome="succeeded", owner="somebody")).more
    ended = await take_lock_in_order(store, locks, second["decky_name"], second["host_uuid"])
    assert ended is not None
    with ended:
        assert await store.claim_lifecycle(second["id"], "me")
        assert not (await store.end_lifecycle(second["id"], outcome="failed", owner="me", error="x")).more


async def test_a_row_that_comes_after_the_holders_end_waits_for_its_lock(
    store: BaseRepository, locks: DeckyLocks
) -> None:
    first, held = await at_work(store, locks)
    assert not (await store.end_lifecycle(first["id"], outcome="succeeded", owner="somebody")).more
    second = await accepted(store)
    turn = asyncio.create_task(take_lock_in_order(store, locks, second["decky_name"], second["host_uuid"]))
    await store.get_lifecycle(second["id"])  # answered after what the turn asked
    assert not turn.done()
    held.release()
    lock = await turn
    assert lock is not None
    lock.release()


async def test_rows_of_other_deckies_and_hosts_are_not_more(store: BaseRepository, locks: DeckyLocks) -> None:
    first, lock = await at_work(store, locks)
    for wanted in ({"decky_name": "decky-02"}, {"decky_name": "decky-01", "host_uuid": "elsewhere"}):
        await store.create_lifecycle({"operation": "deploy", **wanted})
    with lock:
        assert not (await store.end_lifecycle(first["id"], outcome="succeeded", owner="somebody")).more
