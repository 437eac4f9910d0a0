"""The store against raw `sqlite3` on the same disk: `python -m benchmarks.store [--quick]`.

Contenders take turns, several rounds in one call; what is printed are medians, and ratios above 1 mean that
the store is faster. A lifecycle is an insert, a step to running and a step to succeeded, each of them
acknowledged only when it is committed. Raw means DECNET's own table and indexes, one connection, one commit a
statement, no checks, no event loop.
"""

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar
from uuid import uuid4

from benchmarks.report import Result, command
from repo.base import BaseRepository
from repo.factory import get_repository
from repo.models.times import to_text
from repo.repository.ids import new_id
from repo.sqlite.connection import Synchronous

CALLERS = 50
STALE = 10_000

DECNET = """
CREATE TABLE decky_lifecycle (
    id VARCHAR NOT NULL PRIMARY KEY, decky_name VARCHAR NOT NULL, host_uuid VARCHAR,
    operation VARCHAR NOT NULL, status VARCHAR NOT NULL, error TEXT,
    started_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, completed_at DATETIME);
CREATE INDEX ix_decky_lifecycle_decky_name ON decky_lifecycle (decky_name);
CREATE INDEX ix_decky_lifecycle_host_uuid ON decky_lifecycle (host_uuid);
CREATE INDEX ix_decky_lifecycle_operation ON decky_lifecycle (operation);
CREATE INDEX ix_decky_lifecycle_status ON decky_lifecycle (status);
"""


T = TypeVar("T")


def now() -> str:
    return to_text(datetime.now(UTC))


def raw_lifecycles(path: Path, synchronous: str, count: int) -> float:
    """Lifecycles per second."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.executescript(DECNET)
        began = time.perf_counter()
        for n in range(count):
            lifecycle_id, decky = str(uuid4()), f"decky-{n % CALLERS}"
            connection.execute(
                "INSERT INTO decky_lifecycle VALUES (?, ?, NULL, 'deploy', 'pending', NULL, ?, ?, NULL)",
                (lifecycle_id, decky, now(), now()),
            )
            connection.execute(
                "UPDATE decky_lifecycle SET status = 'running', updated_at = ? WHERE id = ?",
                (now(), lifecycle_id),
            )
            connection.execute(
                "UPDATE decky_lifecycle SET status = 'succeeded', updated_at = ?, completed_at = ?"
                " WHERE id = ?",
                (now(), now(), lifecycle_id),
            )
        return count / (time.perf_counter() - began)


async def lifecycles(path: Path, synchronous: Synchronous, callers: int, count: int) -> tuple[float, float]:
    """Lifecycles per second, and the 99th percentile of a call in milliseconds."""
    calls: list[float] = []

    async def timed(call: Awaitable[T]) -> T:
        began = time.perf_counter()
        result = await call
        calls.append(time.perf_counter() - began)
        return result

    async def work(repository: BaseRepository, n: int) -> None:
        data = {"decky_name": f"decky-{n}", "operation": "deploy"}
        for _ in range(count // callers):
            lifecycle_id = await timed(repository.create_lifecycle(data))
            await timed(repository.update_lifecycle(lifecycle_id, {"status": "running"}))
            await timed(repository.update_lifecycle(lifecycle_id, {"status": "succeeded"}))

    async with get_repository(db_path=path, synchronous=synchronous) as repository:
        await work(repository, 0)
        calls.clear()
        began = time.perf_counter()
        await asyncio.gather(*(work(repository, n) for n in range(callers)))
        rate = (count // callers * callers) / (time.perf_counter() - began)
    return rate, sorted(calls)[len(calls) * 99 // 100] * 1000


def fill(path: Path, rows: int, stale: int) -> None:
    """Rows of 1,000 deckies, all of them ended but for `stale` ones that are a day old, spread evenly."""
    began = to_text(datetime.now(UTC) - timedelta(days=1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO decky_lifecycle"
            " (id, decky_name, operation, status, started_at, updated_at, completed_at)"
            " VALUES (?, ?, 'deploy', ?, ?, ?, ?)",
            (
                (new_id(), f"decky-{n % 997}", "pending", began, began, None)
                if n % (rows // stale) == 0
                else (new_id(), f"decky-{n % 997}", "succeeded", began, began, began)
                for n in range(rows)
            ),
        )


def raw_sweep(path: Path) -> float:
    """Seconds for a sweep as one statement, on whatever table is there."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        began = time.perf_counter()
        connection.execute(
            "UPDATE decky_lifecycle SET status = 'failed', error = 'stale', updated_at = ?, completed_at = ?"
            " WHERE status IN ('pending', 'running') AND started_at < ?",
            (now(), now(), now()),
        )
        return time.perf_counter() - began


async def sweep(path: Path) -> tuple[float, float]:
    """Seconds for a sweep of all that is stale, and the median of sweeps that find nothing."""
    async with get_repository(db_path=path) as repository:
        began = time.perf_counter()
        await repository.sweep_stale_lifecycle(datetime.now(UTC), "stale")
        took = time.perf_counter() - began
        return took, await each(200, lambda: repository.sweep_stale_lifecycle(datetime.now(UTC), "stale"))


async def each(count: int, call: Callable[[], Awaitable[object]]) -> float:
    """The median of `count` calls, one after another, in seconds."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return median(took)


async def find_open(path: Path) -> float:
    """The median of a call, in seconds; the decky has ten open rows, however many others there are."""
    async with get_repository(db_path=path) as repository:
        for _ in range(10 - len(await repository.list_lifecycles(decky_name="asked"))):
            await repository.create_lifecycle({"decky_name": "asked", "operation": "deploy"})
        return await each(500, lambda: repository.find_open_lifecycle("asked", "deploy"))


async def compare_writing(results: list[Result], directory: Path, rounds: int) -> None:
    """Store and raw sqlite3 in turns."""
    many, one, normal, full, latency = [], [], [], [], []
    for n in range(rounds):
        normal.append(raw_lifecycles(directory / f"normal-{n}.db", "NORMAL", 2_000))
        rate, p99 = await lifecycles(directory / f"many-{n}.db", "FULL", CALLERS, 5_000)
        many.append(rate)
        latency.append(p99)
        full.append(raw_lifecycles(directory / f"full-{n}.db", "FULL", 500))
        one.append((await lifecycles(directory / f"one-{n}.db", "FULL", 1, 500))[0])
    what, one_by_one = f"lifecycles, {CALLERS} callers, FULL", "lifecycles, one caller, FULL"
    results += [
        Result(what, median(many), "raw NORMAL", median(normal), "lifecycles/s", 1.0),
        Result(what, median(many), "raw FULL", median(full), "lifecycles/s", None),
        Result(one_by_one, median(one), "raw FULL", median(full), "lifecycles/s", 0.5),
        Result(f"p99 of a call, {CALLERS} callers", median(latency), "limit", 25, "ms"),
    ]


async def compare_growth(results: list[Result], directory: Path, rows: int, rounds: int) -> None:
    """The same calls on few and on many closed rows, and the sweep against raw SQL."""
    small, large, raw = directory / "small.db", directory / "large.db", directory / "raw.db"
    for path, count, stale in ((small, 1_000, 10), (large, rows, STALE)):
        async with get_repository(db_path=path):
            pass
        fill(path, count, stale)
    with closing(sqlite3.connect(raw)) as connection:
        connection.executescript(DECNET)
    fill(raw, rows, STALE)
    on_small, on_large, swept, idle, raw_swept, same = [], [], [], [], [], []
    for _ in range(rounds):
        on_small.append(await find_open(small) * 1000)
        on_large.append(await find_open(large) * 1000)
        raw_swept.append(raw_sweep(Path(shutil.copyfile(raw, directory / "raw-copy.db"))) * 1000)
        same.append(raw_sweep(Path(shutil.copyfile(large, directory / "same-copy.db"))) * 1000)
        took, nothing = await sweep(Path(shutil.copyfile(large, directory / "large-copy.db")))
        swept.append(took * 1000)
        idle.append(nothing * 1000)
    swept_ms, some = median(swept), f"sweep, {STALE:,} of {rows:,} rows"
    results += [
        Result(f"find_open, {rows:,} rows", median(on_large), "1,000 rows", median(on_small), "ms", 1 / 1.5),
        Result(f"find_open, {rows:,} rows", median(on_large), "limit", 0.5, "ms"),
        Result(some, swept_ms, "raw, DECNET's table", median(raw_swept), "ms", 1 / 1.1),
        Result(some, swept_ms, "raw, our table", median(same), "ms", 1 / 1.1),
        Result("sweep that finds none", median(idle), "limit", 0.5, "ms"),
    ]


async def measure(quick: bool) -> list[Result]:
    """Writing, then growth."""
    results: list[Result] = []
    with TemporaryDirectory() as directory:
        await compare_writing(results, Path(directory), 2 if quick else 5)
        await compare_growth(results, Path(directory), 100_000 if quick else 1_000_000, 1 if quick else 3)
    return results


if __name__ == "__main__":
    command(__doc__, measure)
