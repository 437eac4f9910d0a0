"""From submit to the beginning of the operation on an idle worker: `python -m benchmarks.latency [--quick]`.

The clock starts before the call that submits, in the submitting process, and stops when the job's own code
begins, in the worker's. In between, ours has committed the pending row and the running one.
"""

import asyncio
from statistics import median

from benchmarks.contest import Contest, Lines, begun, contest
from benchmarks.report import Result, command

CONTENDERS = ("arq", "arq, poll 0.02", "SAQ", "taskiq")


async def latencies(ring: Contest, system: str, count: int) -> list[float]:
    """Milliseconds of each job."""
    async with ring.arena(system) as arena:
        started: Lines = {}
        await arena.worker(started)
        await asyncio.sleep(1.5)
        submitted = await arena.submit(count, pause=0.05)
        await begun(started, count + 1)
    return [(started[name] - moment) / 1e6 for name, moment in submitted.items() if name in started]


async def measure(quick: bool) -> list[Result]:
    """All systems, in turns."""
    rounds, count = (1, 50) if quick else (3, 200)
    async with contest() as ring:
        systems = [system for system in ("decnet-reaper", *CONTENDERS) if ring.can(system)]
        took: dict[str, list[list[float]]] = {system: [] for system in systems}
        for _ in range(rounds):
            for system in systems:
                took[system].append(await latencies(ring, system, count))
    middle = {system: median(median(each) for each in took[system]) for system in systems}
    worst = {system: median(max(each) for each in took[system]) for system in systems}
    ours = "decnet-reaper"
    return [
        Result("submit to running, p50", middle[ours], "limit", 3, "ms"),
        Result(f"submit to running, max of {count}", worst[ours], "limit", 10, "ms"),
        *(
            Result("submit to running, p50", middle[ours], each, middle[each], "ms", None)
            for each in systems[1:]
        ),
        *(
            Result("submit to running, max", worst[ours], each, worst[each], "ms", None)
            for each in systems[1:]
        ),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
