"""From submit to the beginning of the operation on an idle worker: `python -m benchmarks.latency [--quick]`.

The clock starts before the call that submits, in the submitting process, and stops when the job's own code
begins, in the worker's. In between, ours has committed the pending row and the running one. Each of our
deckies has run once before, as in `benchmarks.drain`.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.contest import Contest, Lines, begun, contest
from benchmarks.report import Result, command

CONTENDERS = ("arq", "arq, poll 0.02", "SAQ", "taskiq")


async def latencies(ring: Contest, system: str, count: int) -> list[float]:
    """Milliseconds of each job."""
    async with ring.arena(system) as arena:
        started: Lines = {}
        await arena.worker(started)
        await arena.submit(count)
        await begun(started, count + 1)
        await asyncio.sleep(1.5)
        started.clear()
        submitted = await arena.submit(count, pause=0.05)
        await begun(started, count + 1)
    return [(started[name] - moment) / 1e6 for name, moment in submitted.items() if name in started]


async def commits(count: int) -> list[float]:
    """Milliseconds of two durable commits by raw sqlite3, at the same pace: what the disk alone takes."""
    took = []
    with (
        TemporaryDirectory() as directory,
        closing(sqlite3.connect(Path(directory) / "raw.db", isolation_level=None)) as connection,
    ):
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a);")
        for _ in range(count):
            began = time.perf_counter()
            for _ in range(2):
                connection.execute("INSERT INTO t VALUES (zeroblob(500))")
            took.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.05)
    return took


async def measure(quick: bool) -> list[Result]:
    """All systems, in turns."""
    rounds, count = (1, 50) if quick else (2, 200)
    async with contest() as ring:
        systems = [system for system in ("decnet-reaper", *CONTENDERS) if ring.can(system)]
        took: dict[str, list[list[float]]] = {system: [] for system in systems}
        disk = []
        for _ in range(rounds):
            for system in systems:
                few = count // 5 if system == "arq" else count
                took[system].append(await latencies(ring, system, few))
            disk.append(await commits(count))
    middle = {system: median(median(each) for each in took[system]) for system in systems}
    worst = {system: median(max(each) for each in took[system]) for system in systems}
    ours = "decnet-reaper"
    floor = "two commits by raw sqlite3"
    two, slowest = median(median(each) for each in disk), median(max(each) for each in disk)
    p50, most = "submit to running, p50", f"submit to running, max of {count}"
    return [
        Result(p50, middle[ours], "limit", 3, "ms"),
        Result(most, worst[ours], "limit", 10, "ms"),
        Result(p50, middle[ours], floor, two, "ms", None),
        Result(most, worst[ours], floor, slowest, "ms", None),
        *(Result(p50, middle[ours], each, middle[each], "ms", None) for each in systems[1:]),
        *(Result(most, worst[ours], each, worst[each], "ms", None) for each in systems[1:]),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
