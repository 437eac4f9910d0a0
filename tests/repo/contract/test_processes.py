"""Several processes write to one store: no row is lost, and nobody hears of a lock."""

import asyncio
import os

import pytest

from repo.base import BaseRepository
from repo.errors import StoreUnusable
from tests.support.store.writers import run, written_by_four, written_by_victim_and_heir

pytestmark = pytest.mark.anyio

CLAIMER = """
import asyncio, sys
from repo.factory import get_repository

async def main():
    async with get_repository(url=sys.argv[1]) as repository:
        for lifecycle_id in sys.argv[3:]:
            if await repository.claim_lifecycle(lifecycle_id, sys.argv[2]):
                print(lifecycle_id)

asyncio.run(main())
"""


async def test_four_processes_write_at_once(repository: BaseRepository, url: str) -> None:
    written = await written_by_four(url)
    rows = await repository.list_lifecycles(limit=1_000)
    assert {row["id"] for row in rows if row["status"] == "succeeded"} == written


async def test_four_processes_claim_each_row_once(repository: BaseRepository, url: str) -> None:
    ids = [
        await repository.create_lifecycle({"decky_name": f"d{n}", "operation": "deploy"}) for n in range(40)
    ]
    ended = await asyncio.gather(*(run(CLAIMER, url, f"p{n}", *ids) for n in range(4)))
    assert [(status, error) for status, _, error in ended] == [(0, "")] * 4
    assert sorted(claimed for _, each, _ in ended for claimed in each) == sorted(ids)


async def test_a_writer_that_is_killed_leaves_the_store_to_the_others(
    repository: BaseRepository, url: str
) -> None:
    written = await written_by_victim_and_heir(url)
    rows = await repository.list_lifecycles(limit=1_000)
    ended = {row["id"] for row in rows if row["status"] == "succeeded"}
    assert ended >= written


async def test_a_repository_is_not_carried_across_a_fork(repository: BaseRepository) -> None:
    assert "before a fork" in await asyncio.to_thread(_ask_in_a_fork, repository)
    assert await repository.list_open_lifecycles() == []


def _ask_in_a_fork(repository: BaseRepository) -> str:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            call = repository.list_open_lifecycles()
            call.send(None)
        except StoreUnusable as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read()
