"""Processor time of an idle worker and of the queue server under it: `python -m benchmarks.idle`."""

import asyncio
from pathlib import Path
from statistics import median

from benchmarks.contest import Contest, contest
from benchmarks.report import Result, command

OURS = "decnet-reaper"
CONTENDERS = ("arq", "arq, poll 0.02", "SAQ", "taskiq")
_SETTLING_S = 3.0


def processor_ns(pid: int) -> int:
    """Nanoseconds that a process has run, all its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


async def idle(ring: Contest, system: str, seconds: float) -> tuple[float, float]:
    """Per cent of a core: the worker, the server."""
    async with ring.arena(system) as arena:
        worker = await arena.worker({})
        await arena.submit(20)
        await asyncio.sleep(_SETTLING_S)
        pids = worker.pid, arena.server
        before = [processor_ns(pid) for pid in pids]
        await asyncio.sleep(seconds)
        used = [(processor_ns(pid) - earlier) / 1e9 for pid, earlier in zip(pids, before, strict=True)]
    return used[0] / seconds * 100, used[1] / seconds * 100


async def measure(quick: bool) -> list[Result]:
    """All systems, in turns."""
    rounds, seconds = (1, 3.0) if quick else (2, 10.0)
    async with contest() as ring:
        systems = [system for system in (OURS, *CONTENDERS) if ring.can(system)]
        used: dict[str, list[tuple[float, float]]] = {system: [] for system in systems}
        for _ in range(rounds):
            for system in systems:
                used[system].append(await idle(ring, system, seconds))
    worker, server = (
        {system: median(both[n] for both in used[system]) for system in systems} for n in (0, 1)
    )
    return [
        Result("idle worker", worker[OURS], "limit", 0.2, "% of a core"),
        *(
            Result("idle worker", worker[OURS], each, worker[each], "% of a core", None)
            for each in systems[1:]
        ),
        *(
            Result("queue server under it", server[OURS], each, server[each], "% of a core", None)
            for each in systems[1:]
        ),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
