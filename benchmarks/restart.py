"""From kill -9 of a worker to the next one that is ready, on a real systemd: `python -m benchmarks.restart`.

As root, with debootstrap and systemd-nspawn: on a machine that is booted for it. The moments are those of the
journal. Beside us, under the very same unit, but that ExecStopPost= runs true(1) where ours has the rows
closed: plain arq, and plain arq that has imported the other packages that our worker is made of (SQLModel,
aiosqlite, structlog); both say that they are ready when they would take their first job.
"""

import asyncio
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.report import Result, command
from tests.support.machine.systemd_machine import VENV, Machine, machine, missing

OURS = "decnet-reaper"
CONTENDERS = ("arq, same packages", "arq")
UNITS = {
    OURS: "decnet-worker@1.service",
    "arq, same packages": "decnet-worker@imports.service",
    "arq": "decnet-worker@arq.service",
}

# systemd's own messages, see sd-messages(3).
_EXITED = "98e322203f7a4ed290d09fe03c09fe15"
_OVER = "d9b373ed55a64feb8242e02dbe79a49c"
_STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
_STARTED = "39f53479d3a045ac8e11786248231fbf"
PARTS = {
    "systemd hears of it": _EXITED,
    "ExecStopPost": _OVER,
    "systemd starts the next": _STARTING,
    "until that is ready": _STARTED,
}

_KILL = "import os, sys, time; print(time.monotonic_ns() // 1000, flush=True); os.kill(int(sys.argv[1]), 9)"
_ARQ = """
import os, socket, sys
if sys.argv[1:] == ["imports"]:
    import aiosqlite, sqlmodel, structlog
from arq.worker import Worker, func
from arq.connections import RedisSettings

async def ready(ctx):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])

async def job(ctx):
    pass

Worker([func(job, name="job")], on_startup=ready, redis_settings=RedisSettings("127.0.0.1")).run()
"""


def set_up(host: Machine) -> None:
    """Install everything, and start one worker of each kind."""
    host.run(f"{VENV}/bin/decnet-reaper", "install")
    script = VENV / "arq_worker.py"
    (host.root / script.relative_to("/")).write_text(_ARQ)
    for system in CONTENDERS:
        drop_in = host.root / f"etc/systemd/system/{UNITS[system]}.d/arq.conf"
        drop_in.parent.mkdir()
        start = f"{VENV}/bin/python {script} {'imports' if system != 'arq' else ''}"
        drop_in.write_text(
            f"[Service]\nWatchdogSec=0\nExecStopPost=\nExecStopPost=/usr/bin/true\nExecStart=\nExecStart={start}\n"
        )
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "decnet-reaper.service", *UNITS.values())


def restarted(host: Machine, unit: str) -> list[float]:
    """Kill a worker; milliseconds of each part."""
    since, cursor = host.now(), host.cursor()
    killed_at = int(host.run("python3", "-c", _KILL, host.show(unit, "MainPID")["MainPID"]).stdout)
    ready = {"MESSAGE_ID": _STARTED, "UNIT": unit}
    host.wait_for(lambda entry: ready.items() <= entry.items(), since=cursor)
    said = host.run("journalctl", "--output=json", f"--since={since}", f"UNIT={unit}").stdout
    told = {
        entry["MESSAGE_ID"]: int(entry["__MONOTONIC_TIMESTAMP"])
        for entry in map(json.loads, said.splitlines())
    }
    moments = [killed_at, *(told[message] for message in PARTS.values())]
    return [(later - earlier) / 1e3 for earlier, later in pairwise(moments)]


def rounds(count: int) -> dict[str, list[list[float]]]:
    """All systems, in turns."""
    with tempfile.TemporaryDirectory(prefix="restart-") as directory, machine(Path(directory)) as host:
        set_up(host)
        found: dict[str, list[list[float]]] = {system: [] for system in UNITS}
        for _ in range(count):
            for system, unit in UNITS.items():
                found[system].append(restarted(host, unit))
        return found


async def measure(quick: bool) -> list[Result]:
    """Parts, and the whole."""
    if reasons := missing():
        raise SystemExit(f"this machine lacks {', '.join(reasons)}")
    found = await asyncio.to_thread(rounds, 3 if quick else 10)
    whole = {system: [sum(parts) for parts in each] for system, each in found.items()}
    results = [
        Result("killed to ready, slowest", max(whole[OURS]), "limit", 1_000, "ms"),
        Result("killed to ready", median(whole[OURS]), "limit", 1_000, "ms"),
    ]
    for system in CONTENDERS:
        results.append(
            Result("killed to ready", median(whole[OURS]), system, median(whole[system]), "ms", None)
        )
        results.append(
            Result("killed to ready, slowest", max(whole[OURS]), system, max(whole[system]), "ms", None)
        )
    for number, part in enumerate(PARTS):
        ours, *theirs = ([parts[number] for parts in found[system]] for system in UNITS)
        for of, name in (median, part), (max, f"{part}, slowest"):
            results.append(Result(name, of(ours), CONTENDERS[0], of(theirs[0]), "ms", None))
    return results


if __name__ == "__main__":
    command(__doc__, measure)
