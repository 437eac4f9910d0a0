"""One SQLite store shared by many processes: `python -m benchmarks.shared [--quick]`.

Ten workers, ten operations at a time each, beside one worker; and four processes that submit, beside one,
with 50 callers in all. An SQLite file has one writer at a time, so more processes can't be faster there: they
should not be slower. Rates are of all processes together.
"""

import asyncio
from statistics import median

from benchmarks.contest import Contest, contest
from benchmarks.drain import OURS, ended
from benchmarks.report import Result, command

WORKERS = (1, 10)
SUBMITTERS = (1, 4)
CALLERS = 50


async def drained(ring: Contest, workers: int, count: int) -> float:
    """No-op operations per second."""
    async with ring.arena(OURS) as arena:
        await arena.submit(count, CALLERS)
        await asyncio.gather(*(arena.worker({}) for _ in range(workers)))
        return count / await ended(arena.root / "state" / "decnet-reaper.db", count)


async def submitted(ring: Contest, processes: int, count: int) -> float:
    """Submits per second."""
    async with ring.arena(OURS) as arena:
        told = await asyncio.gather(
            *(
                arena.submit(count // processes, CALLERS // processes, name=f"job-{number}")
                for number in range(processes)
            )
        )
    begun, done = min(each["begun"] for each in told), max(each["done"] for each in told)
    return count / (done - begun) * 1e9


async def measure(quick: bool) -> list[Result]:
    """Few and many, in turns."""
    rounds, count = (1, 1_000) if quick else (3, 2_000)
    drains: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    submits: dict[int, list[float]] = {processes: [] for processes in SUBMITTERS}
    async with contest(peers=False) as ring:
        for _ in range(rounds):
            for workers, rates in drains.items():
                rates.append(await drained(ring, workers, count))
            for processes, rates in submits.items():
                rates.append(await submitted(ring, processes, 4 * count))  # they begin one by one
    one, many = (median(drains[workers]) for workers in WORKERS)
    alone, together = (median(submits[processes]) for processes in SUBMITTERS)
    return [
        Result(f"no-op operations, {WORKERS[1]} workers", many, "one worker", one, "jobs/s"),
        Result(f"submits, {SUBMITTERS[1]} processes", together, "one process", alone, "submits/s"),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
