"""Several processes write to one store: no row is lost, and nobody hears of a lock."""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from repo.base import BaseRepository
from repo.sqlite.checkpoint import LOG_BYTES

pytestmark = pytest.mark.anyio

WRITER = """
import asyncio, sys
from repo.factory import get_repository

async def life(repository, name):
    for _ in range(10):
        lifecycle_id = await repository.create_lifecycle(
            {"decky_name": name, "operation": "deploy", "payload": {"compose": {"x": "y" * 5_000}}}
        )
        assert await repository.claim_lifecycle(lifecycle_id, name)
        assert (await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner=name)).applied
        print(lifecycle_id)

async def main():
    async with get_repository(db_path=sys.argv[1]) as repository:
        await asyncio.gather(*(life(repository, f"{sys.argv[2]}-{n}") for n in range(20)))

asyncio.run(main())
"""


async def write(path: Path, name: str) -> tuple[int, list[str], str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WRITER,
        path,
        name,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode().split(), err.decode()


async def test_four_processes_that_start_and_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    ended = await asyncio.gather(*(write(path, f"p{n}") for n in range(4)))
    assert [(status, error) for status, _, error in ended] == [(0, "")] * 4
    written = {lifecycle_id for _, ids, _ in ended for lifecycle_id in ids}
    assert len(written) == 800
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id FROM decky_lifecycle WHERE status = 'succeeded'").fetchall()
        assert {lifecycle_id for (lifecycle_id,) in found} == written
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert path.stat().st_size > LOG_BYTES


async def test_a_writer_that_is_killed_leaves_the_store_to_the_others(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, path, "victim", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged = [(await process.stdout.readline()).decode().strip()]
    process.kill()
    acknowledged += (await process.stdout.read()).decode().split()
    await process.wait()
    status, written, error = await write(path, "heir")
    assert (status, error) == (0, "")
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id FROM decky_lifecycle WHERE status = 'succeeded'").fetchall()
        assert {lifecycle_id for (lifecycle_id,) in found} >= {*acknowledged, *written}
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
