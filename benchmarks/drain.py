"""No-op operations drained by one worker: `python -m benchmarks.drain [--quick]`.

The jobs are submitted before the worker starts. Ours counts from the first claim to the last end, both
durable rows; a peer from the beginning of its first job to that of its last, and it has no store. Each of our
deckies has run once before, as most of a fleet's have: its lock file is there.
"""

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from statistics import median

from benchmarks.contest import Contest, Lines, begun, contest
from benchmarks.report import Result, command

OURS = "decnet-reaper"
CONTENDERS = ("arq", "arq, poll 0.02", "SAQ", "taskiq")
SLOTS = (10, 50, 200)
"""Jobs at a time: the best of these counts, for each system."""
_HANG_GUARD_S = 120


async def drained(ring: Contest, system: str, max_jobs: int, count: int) -> float:
    """Jobs per second."""
    async with ring.arena(system, max_jobs) as arena:
        store = arena.root / "state" / "decnet-reaper.db"
        if system == OURS:
            await arena.submit(count, callers=50)
            first = await arena.worker({})
            await ended(store, count)
            first.kill()
            await first.wait()
        await arena.submit(count, callers=50)
        lines: Lines = {}
        await arena.worker(lines)
        if system == OURS:
            return count / await ended(store, count)
        await begun(lines, count + 1)
        del lines["warm"]
        return count / (max(lines.values()) - min(lines.values())) * 1e9


async def ended(store: Path, count: int) -> float:
    """Wait until all rows have ended; seconds from the first claim of the newest so many to the last end."""
    with closing(sqlite3.connect(store)) as shell:
        async with asyncio.timeout(_HANG_GUARD_S):
            while shell.execute("SELECT 1 FROM decky_lifecycle WHERE completed_at IS NULL").fetchone():
                await asyncio.sleep(0.1)
        newest = "SELECT claimed_at, completed_at FROM decky_lifecycle ORDER BY id DESC LIMIT ?"
        claimed, completed = zip(*shell.execute(newest, (count,)), strict=True)
    first, last = datetime.fromisoformat(min(claimed)), datetime.fromisoformat(max(completed))
    return float((last - first).total_seconds())


async def measure(quick: bool) -> list[Result]:
    """All systems, in turns."""
    rounds, count = (1, 1_000) if quick else (3, 2_000)
    async with contest() as ring:
        systems = [system for system in (OURS, *CONTENDERS) if ring.can(system)]
        rates: dict[tuple[str, int], list[float]] = {(s, slots): [] for s in systems for slots in SLOTS}
        for _ in range(rounds):
            for system, slots in rates:
                few = count // 5 if system == "arq" else count
                rates[system, slots].append(await drained(ring, system, slots, few))
    best = {system: max(median(rates[system, slots]) for slots in SLOTS) for system in systems}
    return [
        Result(
            "no-op operations, one worker",
            best[OURS],
            each,
            best[each],
            "jobs/s",
            1 if "arq" in each else None,
        )
        for each in systems[1:]
    ] + [
        Result(
            f"the same, {slots} at a time",
            median(rates[OURS, slots]),
            each,
            median(rates[each, slots]),
            "jobs/s",
            None,
        )
        for slots in SLOTS
        for each in systems[1:]
    ]


if __name__ == "__main__":
    command(__doc__, measure)
