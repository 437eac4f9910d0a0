"""What it costs as the store grows: `python -m benchmarks.growth [--quick]`.

The same calls on 1,000 and on 1,000,000 closed rows (100,000 when quick), and the size of the database over
a simulated time in which 1,000 deckies mutate every 30 minutes: rows older than the retention are pruned as
the reaper does, hour by hour, and the size must stop growing once the retention is full.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.report import Result, command
from benchmarks.store import each, fill
from repo.base import BaseRepository
from repo.factory import get_repository
from repo.models.times import to_text
from repo.repository.ids import new_id

DECKIES = 1_000
_PAYLOAD = '{"services":["decky-01","decky-01-ssh","decky-01-http"]}'


async def calls(path: Path) -> dict[str, float]:
    """Milliseconds of each call, the median."""
    async with get_repository(db_path=path) as repository:
        timed: dict[str, Callable[[], Awaitable[object]]] = {
            "one lifecycle": lambda: _lifecycle(repository),
            "find_open": lambda: repository.find_open_lifecycle("decky-0", "deploy"),
            "list of one decky": lambda: repository.list_lifecycles(decky_name="decky-of-its-own", limit=20),
            "list of all": lambda: repository.list_lifecycles(limit=20),
            "open rows": repository.list_open_lifecycles,
            "prune that finds none": lambda: repository.prune_lifecycles(datetime(2000, 1, 1, tzinfo=UTC)),
        }
        return {name: await each(100, call) * 1000 for name, call in timed.items()}


async def _lifecycle(repository: BaseRepository) -> None:
    data = {"decky_name": "decky-of-its-own", "operation": "deploy"}
    lifecycle_id = await repository.create_lifecycle(data)
    await repository.claim_lifecycle(lifecycle_id, "me")
    await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner="me")


async def sizes(path: Path, days: int, retention_days: int) -> list[float]:
    """Megabytes at the end of each simulated day."""
    measured = []
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    async with get_repository(db_path=path, synchronous="NORMAL") as repository:
        for hour in range(days * 24):
            _mutate_all(path, begin + timedelta(hours=hour))
            before = begin + timedelta(hours=hour) - timedelta(days=retention_days)
            while await repository.prune_lifecycles(before):
                pass
            if hour % 24 == 23:
                measured.append(path.stat().st_size / 1e6)  # noqa: ASYNC240 - no disk is behind it
    return measured


def _mutate_all(path: Path, hour: datetime) -> None:
    """An hour's rows, as they are once they have ended."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        for moment in (hour, hour + timedelta(minutes=30)):
            when = to_text(moment)
            connection.executemany(
                "INSERT INTO decky_lifecycle (id, decky_name, operation, status, started_at, updated_at,"
                " completed_at, claimed_at, payload, owner, deliveries) VALUES (?, ?, 'mutate', 'succeeded',"
                " ?, ?, ?, ?, ?, 'host/0123456789abcdef0123456789abcdef/1234/5678/01234567', 1)",
                ((new_id(), f"decky-{n}", when, when, when, when, _PAYLOAD) for n in range(DECKIES)),
            )


async def measure(quick: bool) -> list[Result]:
    """Small and large in turns, then the months."""
    rows, rounds = (100_000, 2) if quick else (1_000_000, 3)
    # Three weeks at a retention of one show the same as three months at the default of thirty days.
    days, retention_days = (6, 2) if quick else (21, 7)
    results = []
    with TemporaryDirectory() as directory:
        small, large = Path(directory) / "small.db", Path(directory) / "large.db"
        for path, count in ((small, 1_000), (large, rows)):
            async with get_repository(db_path=path):
                pass
            fill(path, count, 10)
        took = [(await calls(small), await calls(large)) for _ in range(rounds)]
        for name in took[0][0]:
            on_small, on_large = (median(both[n][name] for both in took) for n in (0, 1))
            aim = 1 / 1.5
            results.append(Result(f"{name}, {rows:,} closed rows", on_large, "1,000", on_small, "ms", aim))
        grown = await sizes(Path(directory) / "month.db", days, retention_days)
    what = f"database after {days} days, {retention_days} kept"
    full = grown[retention_days]
    return [*results, Result(what, grown[-1], f"after {retention_days + 1} days", full, "MB", 1 / 1.05)]


if __name__ == "__main__":
    command(__doc__, measure)
