"""From the command to the first job, peak memory, and `--help`: `python -m benchmarks.startup [--quick]`.

The job is queued already. Beside us: plain arq as it is, and plain arq that has imported the other packages
that our worker is made of (SQLModel, aiosqlite, structlog) and does nothing with them. The store is there
already, as after every start but the very first.
"""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.contest import ROOT, Contest, Lines, begun, contest
from benchmarks.report import Result, command

OURS = "decnet-reaper"
CONTENDERS = ("arq, same packages", "arq")


async def first_job(ring: Contest, system: str) -> tuple[float, float]:
    """Seconds to the first job, and peak megabytes."""
    async with ring.arena(system) as arena:
        await arena.submit(0)
        lines: Lines = {}
        started = time.monotonic_ns()
        worker = await arena.worker(lines)
        await begun(lines, 1)
        status = Path(f"/proc/{worker.pid}/status").read_text()  # noqa: ASYNC240 - no disk is behind it
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return (min(lines.values()) - started) / 1e9, int(peak[1]) / 1024 if peak else 0.0


async def help_s() -> float:
    """Seconds for `decnet-reaper --help`."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reaper", "--help"), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    await process.wait()
    return time.monotonic() - began


async def measure(quick: bool) -> list[Result]:
    """All systems, in turns."""
    rounds = 3 if quick else 9
    async with contest(peers=False) as ring:
        found: dict[str, list[tuple[float, float]]] = {system: [] for system in (OURS, *CONTENDERS)}
        helped = []
        for _ in range(rounds):
            helped.append(await help_s())
            for system, each in found.items():
                each.append(await first_job(ring, system))
    took, peak = (
        {system: median(both[n] for both in each) for system, each in found.items()} for n in (0, 1)
    )
    return [
        Result("command to first job", took[OURS], "limit", 0.6, "s"),
        *(Result("command to first job", took[OURS], each, took[each], "s", None) for each in CONTENDERS),
        Result("peak memory of a worker", peak[OURS], "limit", 60, "MB"),
        *(Result("peak memory of a worker", peak[OURS], each, peak[each], "MB", None) for each in CONTENDERS),
        Result("decnet-reaper --help", median(helped), "limit", 0.25, "s"),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
