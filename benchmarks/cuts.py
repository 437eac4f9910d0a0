"""How long the rows of a host that is cut off say `running`: `python -m benchmarks.cuts [--quick] [--json]`.

As root: hosts are network namespaces, and a cut drops all packets of one. A sample is from the cut to the
time that its row is closed with: ten hosts are cut one after the other, in two rounds, at the default
settings and with HOST_LOST_AFTER=5s. And from before a submit to the line that its row runs, on another
host's worker against one on this machine, in turns.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import datetime
from statistics import median

from benchmarks.report import Result, command
from examples.fleet.network import Namespace, Network
from repo.base import Lifecycle
from tests.support.network.namespaces import need_network
from tests.support.network.remote_hosts import Master, RemoteHost, behind_cables
from tests.support.store.postgres_server import PostgresServer

_AIMS = {"30s": 45.0, "5s": 15.0}
_SWEEP = "2s"  # the default; those of the tests are impatient


class _Here(Namespace):
    """This machine, for a host that has no cable."""

    def command(self, *command: str) -> list[str]:
        """The command itself."""
        return list(command)


async def cut_off(
    network: Network, server: PostgresServer, lost_after: str, hosts: int, rounds: int
) -> list[float]:
    """Seconds from each cut to the end of the host's row."""
    names = [f"h{number}" for number in range(hosts)]
    database = server.tcp_url(server.database(), at=network.address)
    settings = {"host_lost_after": lost_after, "reap_interval": _SWEEP}
    took = []
    async with behind_cables(network, database, names, **settings) as master:
        for number in range(rounds):
            took += await _round(master, f"decky-{number}")
    return took


async def _round(master: Master, decky: str) -> list[float]:
    rows = [await host.running(master.client, decky) for host in master.hosts]
    cut_at = []
    for host in master.hosts:
        await asyncio.sleep(random.uniform(0, 2))  # noqa: S311 - anywhere between two sweeps
        cut_at.append(time.time())
        host.cable.cut()
    ended = [await master.client.wait(row, timeout=120) for row in rows]
    if wrong := [row for row in ended if row["outcome"] != "lost"]:
        raise RuntimeError(f"a row that was to be lost {wrong[0]['outcome']}: {wrong[0]['error']}")
    for host in master.hosts:
        host.open(decky)
        host.cable.mend()
    for row in rows:
        await master.client.wait(row, timeout=120, follow=True)
    return [_completed_at(row) - moment for row, moment in zip(ended, cut_at, strict=True)]


def _completed_at(row: Lifecycle) -> float:
    return datetime.fromisoformat(str(row["completed_at"])).timestamp()


async def to_running(network: Network, server: PostgresServer, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a submit to the line that the row runs: on another host, and on this machine."""
    database = server.tcp_url(server.database(), at=network.address)
    async with behind_cables(network, database, ["far"]) as master:
        (far,) = master.hosts
        shared = {"database": database, "redis": master.fleet.settings.redis}
        near = RemoteHost(master.fleet, _Here(network, "near"), "near", **shared)
        await near.start()
        took: dict[str, list[float]] = {"far": [], "near": []}
        for number in range(count):
            for host in (far, near):
                took[host.name].append(await _submitted(master, host, f"decky-{number}"))
        await near.fleet.close()
    return took["far"], took["near"]


async def _submitted(master: Master, host: RemoteHost, decky: str) -> float:
    host.open(decky)
    began = time.time()
    lifecycle_id = await host.submit(master.client, decky)
    line = await host.worker.log("lifecycle.running", lifecycle_id=lifecycle_id)
    await master.client.wait(lifecycle_id, timeout=60)
    return (datetime.fromisoformat(line["timestamp"]).timestamp() - began) * 1000


async def measure(quick: bool) -> list[Result]:
    """All of it; about five minutes."""
    hosts, rounds, count = (4, 1, 20) if quick else (10, 2, 200)
    results = []
    with need_network() as network, PostgresServer({"max_connections": "300"}, listen="*") as server:
        for lost_after, aim in _AIMS.items():
            took = await cut_off(network, server, lost_after, hosts, rounds)
            results += _lost(lost_after, took, aim)
        far, near = await to_running(network, server, count)
    what, against = "submit to running on another host", "on this machine"
    results.append(Result(f"{what}, p50 of {count}", median(far), against, median(near), "ms", 1 / 1.5))
    return results


def _lost(lost_after: str, took: Sequence[float], aim: float) -> list[Result]:
    what = f"cut to `lost`, HOST_LOST_AFTER={lost_after}"
    return [
        Result(f"{what}, p50 of {len(took)}", median(took), "limit", aim, "s"),
        Result(f"{what}, max", max(took), "limit", aim, "s"),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
