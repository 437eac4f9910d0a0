"""Processes that write to a store at the same time as others."""

import asyncio
import sys

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
        print(lifecycle_id, flush=True)

async def main():
    async with get_repository(url=sys.argv[1]) as repository:
        await asyncio.gather(*(life(repository, f"{sys.argv[2]}-{n}") for n in range(20)))

asyncio.run(main())
"""


async def run(code: str, url: str, name: str, *more: str) -> tuple[int, list[str], str]:
    """Run a program to its end: its status, the words that it printed, its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, url, name, *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode().split(), err.decode()


async def written_by_four(url: str) -> set[str]:
    """The ids that four writers wrote, none of which had an error."""
    ended = await asyncio.gather(*(run(WRITER, url, f"p{n}") for n in range(4)))
    assert [(status, error) for status, _, error in ended] == [(0, "")] * 4
    written = {lifecycle_id for _, ids, _ in ended for lifecycle_id in ids}
    assert len(written) == 800
    return written


async def written_by_victim_and_heir(url: str) -> set[str]:
    """The ids that a writer acknowledged before it was killed, and those of one that came after it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, url, "victim"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged = [(await process.stdout.readline()).decode().strip()]
    process.kill()
    acknowledged += (await process.stdout.read()).decode().split()
    await process.wait()
    status, written, error = await run(WRITER, url, "heir")
    assert (status, error) == (0, "")
    return {*acknowledged, *written}
