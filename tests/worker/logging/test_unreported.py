"""What a process that was killed between a commit and its line leaves for others to tell."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reaper.sweep.unreported import report_abandoned
from repo.base import BaseRepository, Outcome
from repo.factory import get_repository
from worker.liveness.lock_directory import LockDirectory
from worker.logging.unreported import Unreported, abandoned

DIED = "worker died during operation"
OWNER = "some worker"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BaseRepository]:
    async with get_repository(db_path=tmp_path / "store.db") as repository:
        yield repository


async def running_row(store: BaseRepository, decky_name: str = "decky-01") -> str:
    lifecycle_id = await store.create_lifecycle({"decky_name": decky_name, "operation": "deploy"})
    assert await store.claim_lifecycle(lifecycle_id, OWNER)
    return lifecycle_id


@pytest.fixture
def locks(tmp_path: Path) -> LockDirectory:
    return LockDirectory(tmp_path / "locks")


def leave(locks: LockDirectory, lifecycle_id: str, outcome: Outcome) -> None:
    """Be a process that notes this and is killed: nobody holds its file any more."""
    Unreported(locks).begin(lifecycle_id, outcome)


async def logged(store: BaseRepository, locks: LockDirectory) -> list[str]:
    with capture_logs() as lines:
        await report_abandoned(store, locks)
    return [line["event"] for line in lines]


@pytest.mark.anyio
async def test_a_committed_end_is_logged_once(store: BaseRepository, locks: LockDirectory) -> None:
    lifecycle_id = await running_row(store)
    leave(locks, lifecycle_id, "succeeded")
    await store.end_lifecycle(lifecycle_id, outcome="succeeded", owner=OWNER)
    assert await logged(store, locks) == ["lifecycle.succeeded"]
    assert await logged(store, locks) == []


@pytest.mark.anyio
async def test_an_end_that_was_never_committed_is_not_logged(
    store: BaseRepository, locks: LockDirectory
) -> None:
    leave(locks, await running_row(store), "succeeded")
    assert await logged(store, locks) == []


@pytest.mark.anyio
async def test_a_commit_that_is_seen_after_the_first_look_is_logged_once(
    store: BaseRepository, locks: LockDirectory
) -> None:
    early, late = await running_row(store), await running_row(store, "decky-02")
    notes = Unreported(locks)
    for lifecycle_id in (early, late):
        notes.begin(lifecycle_id, "succeeded")
    del notes
    await store.end_lifecycle(early, outcome="succeeded", owner=OWNER)
    assert await logged(store, locks) == ["lifecycle.succeeded"]
    assert await logged(store, locks) == []
    await store.end_lifecycle(late, outcome="succeeded", owner=OWNER)  # the server got so far
    assert await logged(store, locks) == ["lifecycle.succeeded"]
    assert not list((locks.path / "unreported").iterdir())


@pytest.mark.anyio
async def test_an_end_that_another_sweep_made_and_logged_is_not_logged_again(
    store: BaseRepository, locks: LockDirectory
) -> None:
    lifecycle_id = await running_row(store)
    leave(locks, lifecycle_id, "swept")
    assert await logged(store, locks) == []
    await store.end_lifecycle(lifecycle_id, outcome="swept", owner=OWNER, error=DIED)
    assert await logged(store, locks) == []


# The directory's order is the file system's: with ten files of the dead worker one of them is read last.
@pytest.mark.anyio
async def test_a_worker_and_then_its_reaper_killed_over_one_row(
    store: BaseRepository, locks: LockDirectory
) -> None:
    lifecycle_id = await running_row(store)
    for _ in range(5):
        leave(locks, lifecycle_id, "succeeded")
    leave(locks, lifecycle_id, "swept")
    for _ in range(5):
        leave(locks, lifecycle_id, "succeeded")
    await store.end_lifecycle(lifecycle_id, outcome="swept", owner=OWNER, error=DIED)
    assert await logged(store, locks) == ["lifecycle.swept"]


@pytest.mark.anyio
async def test_two_reapers_killed_over_one_row(store: BaseRepository, locks: LockDirectory) -> None:
    lifecycle_id = await running_row(store)
    leave(locks, lifecycle_id, "swept")
    leave(locks, lifecycle_id, "swept")
    await store.end_lifecycle(lifecycle_id, outcome="swept", owner=OWNER, error=DIED)
    assert await logged(store, locks) == ["lifecycle.swept"]


@pytest.mark.anyio
async def test_a_success_that_was_not_committed_is_not_logged_of_a_failed_row(
    store: BaseRepository, locks: LockDirectory
) -> None:
    lifecycle_id = await running_row(store)
    leave(locks, lifecycle_id, "succeeded")
    await store.update_lifecycle(lifecycle_id, {"status": "failed"})
    assert await logged(store, locks) == []


@pytest.mark.anyio
async def test_an_end_that_the_store_made_a_cancel_is_logged_as_that(
    store: BaseRepository, locks: LockDirectory
) -> None:
    lifecycle_id = await running_row(store)
    await store.request_cancel(lifecycle_id)
    leave(locks, lifecycle_id, "interrupted")
    await store.end_lifecycle(lifecycle_id, outcome="interrupted", owner=OWNER, error="worker stopped")
    assert await logged(store, locks) == ["lifecycle.cancelled"]


def test_what_is_logged_leaves_no_file_behind_that_grows(locks: LockDirectory) -> None:
    notes = Unreported(locks)
    notes.begin("stuck", "failed")
    for number in range(20_000):
        notes.begin(f"row-{number}", "succeeded")
        notes.done(f"row-{number}")
    folder = locks.path / "unreported"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 300_000
    with abandoned(locks) as found:
        assert not found, "its process is alive"
    del notes
    with abandoned(locks) as found:
        assert found == {("stuck", "failed")}
        found.clear()
    assert not list(folder.iterdir())
