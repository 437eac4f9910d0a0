"""A fleet on one PostgreSQL server, from 20 hosts to 200: `python -m benchmarks.fleet [--quick]`.

Each host has the sessions of two daemons that say that it is there, a reaper's two sessions of work, and 25
operations at work, whose locks are held: 5,000 deckies in the end. Every session, lock and sweep is real;
they belong to one process. Hosts have roles of their own in a fleet, so that only the master's reaper looks
who is there. Statements are counted by pg_stat_statements; memory is each session's proportional share.
"""

import asyncio
import resource
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.report import Result, command
from reaper.settings import ReaperSettings
from reaper.sweep.sweeper import Sweeper
from repo.factory import get_repository
from repo.postgres.observer import Observer
from repo.postgres.presence import Presence
from repo.postgres.server import Server
from tests.support.fleet import Fleet
from tests.support.store.postgres_server import PostgresServer
from worker.liveness.locks import DeckyLocks, Holder
from worker.liveness.owner import Owner
from worker.queue import Queue

DECKIES = 25
_SETTINGS = {
    "max_connections": "1000",
    "shared_preload_libraries": "pg_stat_statements",
    "fsync": "on",
}
_CALLS = """
SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_PIDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Measured(NamedTuple):
    """What a fleet of one size costs.

    Attributes:
        sweep_ms: one host's sweep, the median over the hosts.
        look_ms: the master's look at all hosts.
        statements: a second, of all reapers at the default interval.
        sessions: that the server holds.
        memory_mb: of them.
    """

    sweep_ms: float
    look_ms: float
    statements: float
    sessions: float
    memory_mb: float


class Growing:
    """A fleet that grows.

    Args:
        server: the store's, with nothing else on it.
        root: for the queue, and a directory for each host.
        stack: what is opened ends with it.
    """

    def __init__(self, server: PostgresServer, root: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self.database = server.database()
        self.url = server.tcp_url(self.database)
        self.stack = stack
        self.sweepers: list[Sweeper] = []
        self.fleet = Fleet(root, database=self.url)
        self.observer = Observer(Server(self.url), 30, longest_gap=10)

    async def start(self) -> None:
        """The store and the queue, with no host yet."""
        async with get_repository(url=self.url):
            self.server.psql("CREATE EXTENSION pg_stat_statements", self.database)
        await self.fleet.start_queue()
        self.stack.push_async_callback(self.fleet.kill_queue)
        self.stack.push_async_callback(self.observer.close)

    async def grow(self, hosts: int) -> None:
        """Add hosts until there are so many."""
        for number in range(len(self.sweepers), hosts):
            self.sweepers.append(await self._host(f"host-{number:03}"))

    async def _host(self, name: str) -> Sweeper:
        for daemon in ("worker", "reaper"):
            presence = Presence(Server(self.url), name, f"decnet-reaper {daemon}")
            await presence.open()
            self.stack.push_async_callback(presence.close)
        (root := self.fleet.root / name).mkdir()
        settings = ReaperSettings(
            state_dir=root, runtime_dir=root / "run", database=self.url, host_uuid=name,
            redis=self.fleet.settings.redis,
        )  # fmt: skip
        repository = await self.stack.enter_async_context(get_repository(url=self.url))
        locks, queue = DeckyLocks.of(settings), Queue(settings.redis)
        self.stack.push_async_callback(queue.close)
        owner = str(Owner.mine(locks.directory.id))

        async def operation(decky_name: str) -> None:
            data = {"decky_name": decky_name, "operation": "deploy", "host_uuid": name}
            lifecycle_id = await repository.create_lifecycle(data)
            lock = locks.try_lock(decky_name, name)
            assert lock is not None  # noqa: S101
            self.stack.enter_context(lock).write(Holder(lifecycle_id, owner, time.monotonic() + 3600))
            await repository.claim_lifecycle(lifecycle_id, owner)

        await asyncio.gather(*(operation(f"decky-{number:02}") for number in range(DECKIES)))
        sweeper = Sweeper(repository, queue, locks, settings)
        await sweeper.run("start")
        return sweeper

    async def measure(self, rounds: int) -> Measured:
        """What it costs at its present size."""
        sweeps, looks, before = [], [], self._calls()
        for _ in range(rounds):
            for sweeper in self.sweepers:
                began = time.perf_counter()
                report = await sweeper.run("cron")
                sweeps.append(time.perf_counter() - began)
                assert (report.rows, report.actions) == (DECKIES, [])  # noqa: S101
        calls = (self._calls() - before) / rounds
        for _ in range(20):
            began = time.perf_counter()
            found = await self.observer.look()
            looks.append(time.perf_counter() - began)
            assert all(sighting.present for sighting in found.values())  # noqa: S101
        pids = self.server.psql(_PIDS, self.database).split()
        return Measured(
            median(sweeps) * 1000,
            median(looks) * 1000,
            calls / ReaperSettings().reap_interval,
            len(pids),
            sum(_memory_kb(pid) for pid in pids) / 1024,
        )

    def _calls(self) -> int:
        return int(self.server.psql(_CALLS, self.database))


def _memory_kb(pid: str) -> int:
    """A process's proportional share of what it has in memory: `Pss` of proc(5), in kB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


async def measure(quick: bool) -> list[Result]:
    """Few hosts, then ten times as many."""
    few, many, rounds = (4, 40, 2) if quick else (20, 200, 5)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with PostgresServer(_SETTINGS) as server, tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            fleet = Growing(server, Path(directory), stack)
            await fleet.start()
            await fleet.grow(few)
            small = await fleet.measure(rounds * many // few)
            await fleet.grow(many)
            large = await fleet.measure(rounds)
    times, then = many // few, f"{many // few} times {few} hosts"
    before, now = Measured(*(times * value for value in small)), f"{many} hosts"
    return [
        Result(f"a host's sweep, {few} hosts", small.sweep_ms, "limit", 20, "ms"),
        Result(f"a host's sweep, {now}", large.sweep_ms, "limit", 20, "ms"),
        Result(f"the master's look, {now}", large.look_ms, then, before.look_ms, "ms"),
        Result(f"statements, {now}", large.statements, then, before.statements, "/s", 1 / 1.1),
        Result(f"sessions, {now}", large.sessions, then, before.sessions, "", 1 / 1.1),
        Result(f"memory of the sessions, {now}", large.memory_mb, then, before.memory_mb, "MB", 1 / 1.1),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
