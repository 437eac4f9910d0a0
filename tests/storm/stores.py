"""The stores that a storm can rage over: how each is made, read by the checker, and troubled."""

import asyncio
import random
import shutil
import sqlite3
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import psycopg

from repo.factory import get_repository
from tests.storm.checker import HISTORY, HISTORY_POSTGRES, Unreadable
from tests.support.fleet import Fleet
from tests.support.machine.small_disk import fill, mount_memory
from tests.support.network.namespaces import Namespace, need_network
from tests.support.network.ports import free_port
from tests.support.store.postgres_server import PostgresServer

_SMALL_LOG = {"max_wal_size": "64MB", "min_wal_size": "32MB"}


class Disk:
    """A disk of the store's own, small enough to be filled. Who isn't root has none, and it never fills."""

    def __init__(self, path: Path, size: str) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self._mounted = mount_memory(path, size) is None

    async def be_full(self, seconds: float) -> None:
        """For a while no byte is free."""
        if self._mounted:
            ballast = await asyncio.to_thread(fill, self.path)
            await asyncio.sleep(seconds)
            ballast.unlink()

    def remove(self) -> None:
        """What was on it is gone."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", self.path], check=True)


class Place(NamedTuple):
    """Where a daemon runs: the words before its command, and its settings."""

    wrapper: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})


class Store(ABC):
    """One store of one storm, and the hosts that use it.

    Attributes:
        hosts: other machines, each with a cable that may be cut; none where all happens on this one.
        queue_options: of the queue's server.
        deckies: each with the host that it lives on, if there are several.
    """

    deckies: Sequence[str] = ("decky-01", "decky-02", "decky-03")

    hosts: Sequence[Namespace] = ()
    queue_options: tuple[str, ...] = ()

    def place(self, number: int) -> Place:
        """Where the daemon of this number runs: on this machine unless there are others."""
        return Place()

    @abstractmethod
    async def make(self, fleet: Fleet) -> None:
        """Make it, with the checker's own witness in it, and let the fleet use it."""

    @abstractmethod
    def read(self, query: str) -> list[tuple[Any, ...]]:
        """What a query says, through a connection of its own.

        Raises:
            Unreadable: the database is away, which may be the storm's doing.
        """

    async def trouble(self, chance: random.Random) -> None:
        """Something bad, that passes."""
        await chance.choice(self._troubles())(chance)

    @abstractmethod
    def lose_what_it_can(self) -> None:
        """Remove what the store makes anew when it is opened. No daemon and no master has it open."""

    @abstractmethod
    def remove(self) -> None:
        """It is needed no more."""

    @abstractmethod
    def _troubles(self) -> list[Callable[[random.Random], Awaitable[None]]]:
        """What may be done to it."""


class SqliteStore(Store):
    """A file."""

    async def make(self, fleet: Fleet) -> None:
        self._disk = Disk(fleet.root / "disk", "64m")
        self._path = self._disk.path / "store.db"
        self._reading = threading.Lock()
        fleet.set(database=str(self._path))
        await fleet.make_store()
        with closing(sqlite3.connect(self._path)) as connection:
            connection.executescript(HISTORY)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        try:
            with self._reading, closing(sqlite3.connect(self._path, timeout=30)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            raise Unreadable from error

    def lose_what_it_can(self) -> None:
        with self._reading:
            Path(f"{self._path}-shm").unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.copytree(self._disk.path, self._disk.path.with_name("kept"))
        self._disk.remove()

    def _troubles(self) -> list[Callable[[random.Random], Awaitable[None]]]:
        return [self._lock, self._fill]

    async def _lock(self, chance: random.Random) -> None:
        seconds = chance.choice([0.2, 1.0, 3.0])
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return
            await asyncio.sleep(seconds)
            connection.execute("ROLLBACK")

    async def _fill(self, chance: random.Random) -> None:
        await self._disk.be_full(chance.choice([0.5, 2.0, 5.0]))


class PostgresStore(Store):
    """A server of its own."""

    async def make(self, fleet: Fleet) -> None:
        self._server = PostgresServer(_SMALL_LOG)
        await self._make(fleet)

    async def _make(self, fleet: Fleet) -> None:
        self._disk = Disk(self._server.directory, "384m")
        await asyncio.to_thread(self._server.start)
        self._database = self._server.database()
        self._url = self._server.url(self._database)
        fleet.set(database=self._url)
        async with get_repository(url=self._url):
            pass
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(HISTORY_POSTGRES)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        try:
            with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
                return connection.execute(query.encode()).fetchall()
        except psycopg.OperationalError as error:
            raise Unreadable from error

    def lose_what_it_can(self) -> None:
        """Nothing: that is the server's own business."""

    def remove(self) -> None:
        self._server.kill()
        self._disk.remove()
        self._server.remove()

    def _troubles(self) -> list[Callable[[random.Random], Awaitable[None]]]:
        return [self._restart, self._kill, self._freeze, self._fill]

    async def _restart(self, chance: random.Random) -> None:
        await asyncio.to_thread(self._server.stop)
        await self._start(chance)

    async def _kill(self, chance: random.Random) -> None:
        await asyncio.to_thread(self._server.kill)
        await self._start(chance)

    async def _freeze(self, chance: random.Random) -> None:
        self._server.freeze()
        await asyncio.sleep(chance.choice([0.5, 2.0]))
        self._server.thaw()

    async def _fill(self, chance: random.Random) -> None:
        """A server that finds no room for its log ends by itself; it is started again in any case."""
        await self._disk.be_full(chance.choice([0.5, 2.0, 5.0]))
        await self._kill(chance)

    async def _start(self, chance: random.Random) -> None:
        await asyncio.sleep(chance.choice([0.0, 2.0]))
        await asyncio.to_thread(self._server.start)


class HostsStore(PostgresStore):
    """Two hosts, and the servers and the masters on this machine."""

    deckies = ("decky-01@h0", "decky-02@h1", "decky-03@h0")

    async def make(self, fleet: Fleet) -> None:
        self._server = PostgresServer(_SMALL_LOG, listen="*")
        await self._make(fleet)
        self._machines = ExitStack()
        network = self._machines.enter_context(need_network())
        self.hosts = [self._machines.enter_context(Namespace(network, f"h{number}")) for number in range(2)]
        port = free_port("*")
        self.queue_options = ("--port", f"{port}", "--bind", "*", "--protected-mode", "no")
        self._places = []
        for number, host in enumerate(self.hosts):
            root = fleet.root / f"h{number}"
            root.mkdir()
            own = {
                "host_uuid": f"h{number}",
                "host_lost_after": "4",
                "state_dir": str(root / "state"),
                "runtime_dir": str(root / "run"),
                "database": self._server.tcp_url(self._database, at=network.address),
                "redis": f"redis://{network.address}:{port}",
            }
            environment = {f"DECNET_REAPER_{name.upper()}": value for name, value in own.items()}
            self._places.append(Place(tuple(host.command()), environment))

    def place(self, number: int) -> Place:
        return self._places[number % len(self._places)]

    def remove(self) -> None:
        self._machines.close()
        super().remove()


STORES: dict[str, type[Store]] = {
    "sqlite": SqliteStore,
    "postgresql": PostgresStore,
    "hosts": HostsStore,
}
