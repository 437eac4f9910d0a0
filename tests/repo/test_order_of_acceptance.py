"""Order of acceptance is the store's, whatever the clocks of those who submit say."""

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from repo import ids
from repo.base import BaseRepository
from repo.factory import get_repository

pytestmark = pytest.mark.anyio
DECKY = {"decky_name": "d1", "operation": "deploy"}

SUBMIT = """
import asyncio, sys, time
from repo.factory import get_repository

behind = float(sys.argv[2])
now = time.time_ns
time.time_ns = lambda: now() - int(behind * 1e9)

async def main():
    async with get_repository(url=sys.argv[1]) as repository:
        for wish in sys.argv[3:]:
            data = {"decky_name": "d1", "operation": "deploy", "payload": {"wish": wish}}
            print((await repository.submit_lifecycle(data))[0])

asyncio.run(main())
"""


async def submit(path: Path, behind: float, *wishes: str) -> list[str]:
    """The ids that a process gets whose clock is behind by so many seconds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUBMIT, str(path), str(behind), *wishes), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().split()


@pytest.mark.parametrize("behind", [60.0, 3600.0, 86_400.0 * 365 * 20])
async def test_a_clock_that_is_behind(repository: BaseRepository, path: Path, behind: float) -> None:
    accepted = [
        *await submit(path, 0, "a", "b"),
        *await submit(path, behind, "c", "a"),
        *await submit(path, 0, "c"),
    ]
    assert accepted == sorted(accepted)
    assert len(set(accepted)) == 5
    # the repeated wish is the newest one's, not an older row's
    assert await submit(path, behind, "c") == accepted[-1:]
    assert [row["id"] for row in await repository.list_open_lifecycles()] == accepted


async def test_rows_of_decnet_with_random_ids_are_no_clock(
    repository: BaseRepository, shell: sqlite3.Connection
) -> None:
    now = "2026-05-04 10:11:12.123456"
    for _ in range(2_000):
        shell.execute(
            "INSERT INTO decky_lifecycle VALUES (?, 'd2', NULL, 'deploy', 'succeeded', NULL, NULL, ?, ?, ?,"
            " NULL, NULL, NULL, 1, NULL, NULL, 0, NULL, NULL)",
            (str(uuid4()), now, now, now),
        )
    accepted = [await repository.create_lifecycle(DECKY) for _ in range(3)]
    assert accepted == sorted(accepted)
    assert all(lifecycle_id[:8] < ids.horizon() for lifecycle_id in accepted)


async def test_a_given_id_keeps_its_place(repository: BaseRepository) -> None:
    newest = await repository.create_lifecycle(DECKY)
    given = f"{int(newest[:8], 16) - 1:08x}{newest[8:]}"
    assert await repository.create_lifecycle(DECKY | {"id": given}) == given
    assert [row["id"] for row in await repository.list_open_lifecycles()] == [given, newest]


async def test_four_processes_accept_in_one_order(path: Path) -> None:
    async with get_repository(db_path=path) as repository:
        wishes = [[json.dumps([n, m]) for m in range(25)] for n in range(4)]
        accepted = await asyncio.gather(*(submit(path, n * 7.5, *each) for n, each in enumerate(wishes)))
        for each in accepted:
            assert each == sorted(each)
        rows = await repository.list_lifecycles(limit=1_000)
        assert sorted(row["id"] for row in rows) == sorted(row for each in accepted for row in each)
