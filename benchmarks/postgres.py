"""The store on PostgreSQL against its drivers, one server for all: `python -m benchmarks.postgres [--quick]`.

Contenders take turns, several rounds in one call; what is printed are medians, and ratios above 1 mean that
the store is faster. The server is Debian's, fsync on, through its unix socket. A lifecycle is an insert, a
step to running and a step to succeeded, each acknowledged only when it is committed. The
contenders have DECNET's own table and indexes, no checks and no guards: ten connections of asyncpg's pool (of
psycopg's, where asyncpg is not installed) that run a statement each, and one connection of psycopg.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any

import psycopg

from benchmarks.report import Result, command
from benchmarks.store import CALLERS, STALE, each
from repo.base import BaseRepository
from repo.factory import get_repository
from repo.repository.ids import new_id
from tests.support.store.postgres_server import PostgresServer

try:
    import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]
except ImportError:
    asyncpg = None

TABLE = """
CREATE TABLE decky_lifecycle (
    id varchar NOT NULL PRIMARY KEY, decky_name varchar NOT NULL, host_uuid varchar,
    operation varchar NOT NULL,
    status varchar NOT NULL, error text, started_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    completed_at timestamptz);
CREATE INDEX ON decky_lifecycle (decky_name);
CREATE INDEX ON decky_lifecycle (operation);
CREATE INDEX ON decky_lifecycle (status);
"""
STEPS = (
    "INSERT INTO decky_lifecycle VALUES ($1, 'decky', NULL, 'deploy', 'pending', NULL, now(), now(), NULL)",
    "UPDATE decky_lifecycle SET status = 'running', updated_at = now() WHERE id = $1",
    "UPDATE decky_lifecycle SET status = 'succeeded', updated_at = now(), completed_at = now() WHERE id = $1",
)
FILL = """
INSERT INTO decky_lifecycle (id, decky_name, operation, status, started_at, updated_at, completed_at)
SELECT '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'decky-' || n %% 997, 'deploy',
    CASE n %% %(spread)s WHEN 0 THEN 'pending' ELSE 'succeeded' END,
    now() - interval '1 day' + n * interval '10 milliseconds', now(),
    CASE n %% %(spread)s WHEN 0 THEN NULL ELSE now() END
FROM generate_series(1, %(rows)s) n
"""
SWEEP = (
    "UPDATE decky_lifecycle SET status = 'failed', error = 'stale', updated_at = now(), completed_at = now()"
    " WHERE status IN ('pending', 'running') AND started_at < now()"
)
FIND_OPEN = (
    "SELECT * FROM decky_lifecycle WHERE status IN ('pending', 'running') AND decky_name = %s"
    " AND operation = 'deploy' ORDER BY started_at DESC, id DESC LIMIT 1"
)
LIST = "SELECT * FROM decky_lifecycle ORDER BY started_at DESC, id DESC LIMIT 50"

Execute = Callable[[str, str], Awaitable[object]]


async def rate(callers: int, count: int, lifecycle: Callable[[int], Awaitable[object]]) -> float:
    """Lifecycles per second of so many callers together."""

    async def work(caller: int) -> None:
        for _ in range(count // callers):
            await lifecycle(caller)

    await lifecycle(0)
    began = time.perf_counter()
    await asyncio.gather(*(work(caller) for caller in range(callers)))
    return count // callers * callers / (time.perf_counter() - began)


def ours(repository: BaseRepository) -> Callable[[int], Awaitable[object]]:
    """A lifecycle through the store."""

    async def lifecycle(caller: int) -> None:
        lifecycle_id = await repository.create_lifecycle(
            {"decky_name": f"decky-{caller}", "operation": "deploy"}
        )
        await repository.update_lifecycle(lifecycle_id, {"status": "running"})
        await repository.update_lifecycle(lifecycle_id, {"status": "succeeded"})

    return lifecycle


def theirs(execute: Execute) -> Callable[[int], Awaitable[object]]:
    """A lifecycle as three statements, each its own transaction."""

    async def lifecycle(_: int) -> None:
        lifecycle_id = new_id()
        for step in STEPS:
            await execute(step, lifecycle_id)

    return lifecycle


async def pooled(url: str, count: int) -> float:
    """Lifecycles per second of 50 callers over ten connections."""
    if asyncpg is not None:
        async with asyncpg.create_pool(url, min_size=10, max_size=10) as pool:
            return await rate(CALLERS, count, theirs(pool.execute))
    connections = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(10)]
    free: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def execute(statement: str, lifecycle_id: str) -> None:
        connection = await free.get()
        await connection.execute(statement.replace("$1", "%s"), (lifecycle_id,), prepare=True)
        free.put_nowait(connection)

    measured = await rate(CALLERS, count, theirs(execute))
    for connection in connections:
        await connection.close()
    return measured


async def alone(url: str, count: int) -> float:
    """Lifecycles per second of one caller with one connection."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def execute(statement: str, lifecycle_id: str) -> None:
            await connection.execute(statement.replace("$1", "%s"), (lifecycle_id,), prepare=True)

        return await rate(1, count, theirs(execute))


async def compare_writing(results: list[Result], server: PostgresServer, rounds: int) -> None:
    """The store, a pool and one connection in turns."""
    many, one, pool, single = [], [], [], []
    for _ in range(rounds):
        raw, own = server.database(), server.database()
        server.psql(TABLE, raw)
        async with get_repository(url=server.url(own)) as repository:
            pool.append(await pooled(server.url(raw), 2_000))
            many.append(await rate(CALLERS, 5_000, ours(repository)))
            single.append(await alone(server.url(raw), 300))
            one.append(await rate(1, 300, ours(repository)))
    against = f"ten connections, {'asyncpg' if asyncpg is not None else 'psycopg'}"
    results += [
        Result(f"lifecycles, {CALLERS} callers", median(many), against, median(pool), "lifecycles/s", 3.0),
        Result("lifecycles, one caller", median(one), "one psycopg", median(single), "lifecycles/s", 0.8),
    ]


async def compare_growth(results: list[Result], server: PostgresServer, rows: int, rounds: int) -> None:
    """Calls on many closed rows, against the same statements through bare psycopg on the same rows."""
    made = server.database()
    async with get_repository(url=server.url(made)):
        pass
    with server.connection(made) as shell:
        shell.execute(FILL, {"spread": rows // STALE, "rows": rows})
        shell.execute("VACUUM ANALYZE decky_lifecycle")
    found: tuple[list[float], list[float]] = [], []
    listed: tuple[list[float], list[float]] = [], []
    swept: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        copy = server.url(server.database(template=made))
        async with await psycopg.AsyncConnection.connect(copy, autocommit=True) as raw:

            async def fetch(statement: str, *values: str, raw: psycopg.AsyncConnection[Any] = raw) -> None:
                await (await raw.execute(statement, values, prepare=True)).fetchall()

            async with get_repository(url=copy) as repository:
                found[0].append(await each(300, lambda: repository.find_open_lifecycle("decky-0", "deploy")))
                found[1].append(await each(300, lambda: fetch(FIND_OPEN, "decky-0")))
                listed[0].append(await each(100, lambda: repository.list_lifecycles()))
                listed[1].append(await each(100, lambda: fetch(LIST)))
                began = time.perf_counter()
                await repository.sweep_stale_lifecycle(datetime.now(UTC), "stale")
                swept[0].append(time.perf_counter() - began)
        copy = server.url(server.database(template=made))
        async with await psycopg.AsyncConnection.connect(copy, autocommit=True) as raw:
            began = time.perf_counter()
            await raw.execute(SWEEP)
            swept[1].append(time.perf_counter() - began)
    for what, (mine, bare) in {
        f"find_open, {rows:,} rows": found,
        f"list of 50, {rows:,} rows": listed,
        f"sweep, {STALE:,} of {rows:,} rows": swept,
    }.items():
        results.append(Result(what, median(mine) * 1000, "psycopg", median(bare) * 1000, "ms", 1 / 1.1))


async def measure(quick: bool) -> list[Result]:
    """Writing, then growth."""
    results: list[Result] = []
    with PostgresServer({"fsync": "on"}) as server:
        await compare_writing(results, server, 2 if quick else 5)
        await compare_growth(results, server, 100_000 if quick else 1_000_000, 1 if quick else 3)
    return results


if __name__ == "__main__":
    command(__doc__, measure)
