"""How long a row lies after kill -9 of its worker: `python -m benchmarks.recovery [--rounds 30] [--arq]`.

Each round kills a worker in the middle of an operation, at the default settings, and takes the time to the
closed row and to the running retry on another worker. With --arq, plain arq at its defaults is killed once in
the same call: its job runs again when its in-progress key has expired, `job_timeout` + 10 s = 310 s later.
"""

import argparse
import asyncio
import signal
import statistics
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from repo.base import Lifecycle
from tests.support.fleet import Fleet, running_fleet, wait_status
from worker.client import LifecycleClient

ARQ_WORKER = """
import asyncio, sys
from arq import Worker
from arq.connections import RedisSettings
async def job(ctx):
    print("started", flush=True)
    await asyncio.sleep(3600)
Worker([job], redis_settings=RedisSettings(unix_socket_path=sys.argv[1])).run()
"""


async def round_trip(fleet: Fleet, client: LifecycleClient, number: int) -> tuple[float, float]:
    """One kill: seconds to the closed row, and to the running retry."""
    decky_name = f"decky-{number:02}"
    gate = fleet.gate(decky_name)
    lost = await client.deploy(decky_name, fleet.document(decky_name, gate=gate))
    row = await wait_status(client, lost, "running")
    victim = next(daemon for daemon in fleet.daemons if f"/{daemon.pid}/" in (row["owner"] or ""))
    await asyncio.sleep(0.5)
    killed_at = time.time()
    await victim.kill()
    closed = await client.wait(lost, timeout=60)
    retry = await _retry(client, lost)
    gate.touch()
    await client.wait(retry["id"], timeout=60)
    fleet.daemons.remove(victim)
    await fleet.worker()
    return _since(killed_at, str(closed["completed_at"])), _since(killed_at, str(retry["claimed_at"]))


async def _retry(client: LifecycleClient, lost: str) -> Lifecycle:
    while True:
        for row in await client.repository.list_lifecycles(limit=5):
            if row["retry_of"] == lost and row["claimed_at"] is not None:
                return row
        await asyncio.sleep(0.01)


def _since(moment: float, iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp() - moment


async def arq_recovery(socket: Path) -> float:
    """Seconds from kill -9 of a plain arq worker to the second start of its job on another one."""
    from arq import create_pool
    from arq.connections import RedisSettings

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ARQ_WORKER, str(socket)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    pool = await create_pool(RedisSettings(unix_socket_path=str(socket)))
    await pool.enqueue_job("job")
    first = await start()
    assert first.stdout is not None  # noqa: S101
    await first.stdout.readline()
    second = await start()
    first.send_signal(signal.SIGKILL)
    begun = time.monotonic()
    assert second.stdout is not None  # noqa: S101
    await second.stdout.readline()
    took = time.monotonic() - begun
    second.kill()
    await asyncio.gather(first.wait(), second.wait())
    await pool.aclose()
    return took


def row_of(name: str, values: Iterable[float]) -> str:
    """One line of the table, in milliseconds."""
    values = list(values)
    return f"| {name} | {len(values)} | {statistics.median(values) * 1000:.0f} | {max(values) * 1000:.0f} |"


async def measure(rounds: int, *, arq: bool) -> list[str]:
    """Kill so many workers; the lines of the table. `arq`: kill plain arq too, once (310 s)."""
    async with running_fleet() as fleet:
        del fleet.environment["DECNET_REAPER_REAP_INTERVAL"]
        plain = asyncio.create_task(arq_recovery(fleet.socket)) if arq else None
        await fleet.reaper()
        for _ in range(2):
            await fleet.worker()
        async with fleet.client() as client:
            times = [await round_trip(fleet, client, number) for number in range(rounds)]
        return [
            "| after kill -9 of the worker | rounds | p50 ms | max ms |",
            "|---|---|---|---|",
            row_of("row closed", (closed for closed, _ in times)),
            row_of("retry running", (retried for _, retried in times)),
            *([] if plain is None else [row_of("plain arq: job runs again", [await plain])]),
        ]


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--arq", action="store_true", help="also kill plain arq, once (310 s)")
    given = parser.parse_args()
    print("\n".join(asyncio.run(measure(given.rounds, arq=given.arq))))


if __name__ == "__main__":
    main()
