"""A reaper's pass over open rows whose operations all run: `python -m benchmarks.reap [--quick]`.

Nothing is to be done for any of them, which is what a pass finds nearly always: each row is read, its lock
found held, its owner found alive and its deadline ahead.
"""

import asyncio
import resource
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.contest import contest
from benchmarks.report import Result, command
from reaper.settings import ReaperSettings
from reaper.sweep.sweeper import Sweeper
from repo.base import BaseRepository
from repo.factory import get_repository
from worker.liveness.locks import DeckyLock, DeckyLocks, Holder
from worker.liveness.owner import Owner
from worker.queue import Queue


async def running(repository: BaseRepository, locks: DeckyLocks, owner: str, number: int) -> DeckyLock:
    """One row that runs, and the lock that proves it."""
    decky_name = f"decky-{number}"
    lifecycle_id = await repository.create_lifecycle({"decky_name": decky_name, "operation": "deploy"})
    lock = locks.try_lock(decky_name, None)
    assert lock is not None  # noqa: S101
    lock.write(Holder(lifecycle_id, owner, time.monotonic() + 3600))
    await repository.claim_lifecycle(lifecycle_id, owner)
    return lock


async def passes(count: int, open_rows: int) -> float:
    """Milliseconds of a pass, the median."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * open_rows + 500)), hard))
    async with contest(peers=False) as ring, AsyncExitStack() as stack:
        arena = await stack.enter_async_context(ring.arena("decnet-reaper"))
        state = stack.enter_context(tempfile.TemporaryDirectory())
        settings = ReaperSettings(state_dir=Path(state), runtime_dir=arena.root)
        repository = await stack.enter_async_context(get_repository(settings.database))
        locks, queue = DeckyLocks.of(settings), Queue(settings.redis)
        owner = str(Owner.mine(locks.directory.id))
        stack.push_async_callback(queue.close)
        for lock in await asyncio.gather(
            *(running(repository, locks, owner, number) for number in range(open_rows))
        ):
            stack.enter_context(lock)
        sweeper = Sweeper(repository, queue, locks, settings)
        await sweeper.run("start")
        took = []
        for _ in range(count):
            began = time.perf_counter()
            report = await sweeper.run("cron")
            took.append(time.perf_counter() - began)
            assert report.rows == open_rows  # noqa: S101
            assert not report.actions  # noqa: S101
    return median(took) * 1000


async def measure(quick: bool) -> list[Result]:
    """Three sizes."""
    count = 10 if quick else 50
    few, some, many = [await passes(count, size) for size in (0, 500, 1_000)]
    return [
        Result("reap pass, 1,000 open rows", many, "limit", 20, "ms"),
        Result("1,000 open rows; twice 500", many, "twice 500", 2 * some - few, "ms", 1 / 1.2),
        Result("reap pass, no open row", few, "limit", 5, "ms", None),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
