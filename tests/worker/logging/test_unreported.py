"""What a process that was killed between a commit and its line leaves for others to tell."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reaper.sweep.unreported import tell_untold
from repo.base import BaseRepository, Outcome
from repo.factory import get_repository
from worker.logging.unreported import Unreported, abandoned

DIED = "worker died during operation"
OWNER = "some worker"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BaseRepository]:
    async with get_repository(db_path=tmp_path / "store.db") as repository:
        yield repository


async def running_row(store: BaseRepository) -> str:
    lifecycle_id = await store.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
    assert await store.claim_lifecycle(lifecycle_id, OWNER)
    return lifecycle_id


def leave(runtime_dir: Path, lifecycle_id: str, outcome: Outcome, error: str | None = None) -> None:
    """Be a process that notes this and is killed: nobody holds its file any more."""
    Unreported(runtime_dir).begin(lifecycle_id, outcome, error)


async def told(store: BaseRepository, runtime_dir: Path) -> list[str]:
    with capture_logs() as lines:
        await tell_untold(store, runtime_dir)
    return [line["event"] for line in lines]


@pytest.mark.anyio
async def test_a_committed_end_is_told_once(store: BaseRepository, tmp_path: Path) -> None:
    lifecycle_id = await running_row(store)
    leave(tmp_path, lifecycle_id, "succeeded")
    await store.end_lifecycle(lifecycle_id, outcome="succeeded", owner=OWNER)
    assert await told(store, tmp_path) == ["lifecycle.succeeded"]
    assert await told(store, tmp_path) == []


@pytest.mark.anyio
async def test_an_end_that_was_never_committed_is_not_told(store: BaseRepository, tmp_path: Path) -> None:
    leave(tmp_path, await running_row(store), "succeeded")
    assert await told(store, tmp_path) == []


# The directory's order is the file system's: with ten files of the dead worker one of them is read last.
@pytest.mark.anyio
async def test_a_worker_and_then_its_reaper_killed_over_one_row(
    store: BaseRepository, tmp_path: Path
) -> None:
    lifecycle_id = await running_row(store)
    for _ in range(5):
        leave(tmp_path, lifecycle_id, "succeeded")
    leave(tmp_path, lifecycle_id, "swept", DIED)
    for _ in range(5):
        leave(tmp_path, lifecycle_id, "succeeded")
    await store.end_lifecycle(lifecycle_id, outcome="failed", owner=OWNER, error=DIED)
    assert await told(store, tmp_path) == ["lifecycle.swept"]


@pytest.mark.anyio
async def test_two_reapers_killed_over_one_row(store: BaseRepository, tmp_path: Path) -> None:
    lifecycle_id = await running_row(store)
    leave(tmp_path, lifecycle_id, "swept", DIED)
    leave(tmp_path, lifecycle_id, "swept", DIED)
    await store.end_lifecycle(lifecycle_id, outcome="failed", owner=OWNER, error=DIED)
    assert await told(store, tmp_path) == ["lifecycle.swept"]


@pytest.mark.anyio
async def test_a_success_that_was_not_committed_is_not_told_of_a_failed_row(
    store: BaseRepository, tmp_path: Path
) -> None:
    lifecycle_id = await running_row(store)
    leave(tmp_path, lifecycle_id, "succeeded")
    await store.update_lifecycle(lifecycle_id, {"status": "failed"})
    assert await told(store, tmp_path) == []


def test_what_is_told_leaves_no_file_behind_that_grows(tmp_path: Path) -> None:
    ledger = Unreported(tmp_path)
    ledger.begin("stuck", "failed", "the store is away")
    for number in range(20_000):
        ledger.begin(f"row-{number}", "succeeded", None)
        ledger.told(f"row-{number}")
    assert sum(file.stat().st_size for file in (tmp_path / "untold").iterdir()) < 300_000
    with abandoned(tmp_path) as untold:
        assert not untold, "its process is alive"
    del ledger
    with abandoned(tmp_path) as untold:
        assert untold.keys() == {"stuck"}
    assert not list((tmp_path / "untold").iterdir())
