"""Submits by 50 concurrent callers of one process: `python -m benchmarks.submit [--quick]`.

Ours counts until every row is durable and rung for; bare arq until every job is in Redis.
"""

from statistics import median

from benchmarks.contest import Contest, contest
from benchmarks.report import Result, command

OURS = "decnet-reaper"
CALLERS = 50


async def submitted(ring: Contest, system: str, count: int) -> float:
    """Submits per second."""
    async with ring.arena(system) as arena:
        told = await arena.submit(count, CALLERS)
    return count / (told["done"] - told["begun"]) * 1e9


async def measure(quick: bool) -> list[Result]:
    """All systems, in turns."""
    rounds, count = (1, 2_000) if quick else (5, 5_000)
    async with contest() as ring:
        systems = [system for system in (OURS, "arq", "SAQ", "taskiq") if ring.can(system)]
        rates: dict[str, list[float]] = {system: [] for system in systems}
        for _ in range(rounds):
            for system in systems:
                rates[system].append(await submitted(ring, system, count))
    middle = {system: median(rates[system]) for system in systems}
    return [
        Result(
            f"submits, {CALLERS} callers",
            middle[OURS],
            each,
            middle[each],
            "submits/s",
            1 if each == "arq" else None,
        )
        for each in systems[1:]
    ]


if __name__ == "__main__":
    command(__doc__, measure)
