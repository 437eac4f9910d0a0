"""Order of acceptance is the store's, whatever the clocks of those who submit say."""

import asyncio
import json
import sys

import pytest

from repo.base import BaseRepository
from repo.factory import get_repository
from repo.repository import ids

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


async def submit(url: str, behind: float, *wishes: str) -> list[str]:
    """The ids that a process gets whose clock is behind by so many seconds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUBMIT, url, str(behind), *wishes), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().split()


@pytest.mark.parametrize("behind", [60.0, 3600.0, 86_400.0 * 365 * 20])
async def test_a_clock_that_is_behind(repository: BaseRepository, url: str, behind: float) -> None:
    accepted = [
        *await submit(url, 0, "a", "b"),
        *await submit(url, behind, "c", "a"),
        *await submit(url, 0, "c"),
    ]
    assert accepted == sorted(accepted)
    assert len(set(accepted)) == 5
    # the repeated wish is the newest one's, not an older row's
    assert await submit(url, behind, "c") == accepted[-1:]
    assert [row["id"] for row in await repository.list_open_lifecycles()] == accepted


async def test_a_given_id_keeps_its_place(repository: BaseRepository) -> None:
    newest = await repository.create_lifecycle(DECKY)
    given = f"{int(newest[:8], 16) - 1:08x}{newest[8:]}"
    assert await repository.create_lifecycle(DECKY | {"id": given}) == given
    assert [row["id"] for row in await repository.list_open_lifecycles()] == [given, newest]


@pytest.mark.parametrize("given", ["02zzzzzz-zzzz-7", "02ARZ3NDEKTSV47RRFFQ69G5FA", "02000000-0000-7"])
async def test_an_id_that_only_looks_like_one_of_ours(
    repository: BaseRepository, url: str, given: str
) -> None:
    assert await repository.create_lifecycle(DECKY | {"id": given}) == given
    accepted = await submit(url, 0, "a", "b")
    assert accepted == sorted(accepted)


async def test_ids_of_no_clock_keep_nobody_from_accepting(repository: BaseRepository, url: str) -> None:
    """One of nearly a hundred years ahead, which is followed, and one behind it."""
    last = int(ids.horizon(), 16) - 1
    for moment in (last, last + (1 << 20)):
        await repository.create_lifecycle(DECKY | {"id": f"{moment:08x}-0000-7000-8000-000000000000"})
    accepted = [*await submit(url, 0, "a", "b"), *await submit(url, 0, "c")]
    assert accepted == sorted(accepted)
    assert accepted[0] > f"{last:08x}"


async def test_four_processes_accept_in_one_order(url: str) -> None:
    async with get_repository(url=url) as repository:
        wishes = [[json.dumps([n, m]) for m in range(25)] for n in range(4)]
        accepted = await asyncio.gather(*(submit(url, n * 7.5, *each) for n, each in enumerate(wishes)))
        for each in accepted:
            assert each == sorted(each)
        rows = await repository.list_lifecycles(limit=1_000)
        assert sorted(row["id"] for row in rows) == sorted(row for each in accepted for row in each)
