"""Several processes write to one store: no row is lost, and nobody hears of a lock."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from repo.base import BaseRepository
from repo.sqlite.checkpoint import LOG_BYTES
from tests.support.store.writers import written_by_four, written_by_victim_and_heir

pytestmark = pytest.mark.anyio


async def test_four_processes_that_start_and_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    written = await written_by_four(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id FROM decky_lifecycle WHERE status = 'succeeded'").fetchall()
        assert {lifecycle_id for (lifecycle_id,) in found} == written
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert path.stat().st_size > LOG_BYTES


async def test_a_writer_that_is_killed_leaves_the_store_to_the_others(path: Path) -> None:
    written = await written_by_victim_and_heir(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id FROM decky_lifecycle WHERE status = 'succeeded'").fetchall()
        assert {lifecycle_id for (lifecycle_id,) in found} >= written
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("moments", range(0, 60, 3))
async def test_an_event_loop_that_is_held_up_keeps_no_other_process_waiting(
    repository: BaseRepository, path: Path, moments: int
) -> None:
    """A log that nobody reads holds up a worker's loop, whatever its store is about to do."""
    deckies = [{"decky_name": f"decky-{number}", "operation": "deploy"} for number in range(3)]
    writes = [asyncio.create_task(repository.create_lifecycle(decky)) for decky in deckies]
    for _ in range(moments):
        await asyncio.sleep(0)
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # waits in this very loop, which runs nothing meanwhile
        other.execute("ROLLBACK")
    assert len(set(await asyncio.gather(*writes))) == len(deckies)
