"""The stores that a storm can rage over: how each is made, read by the checker, and troubled."""

import asyncio
import random
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from repo.factory import get_repository
from tests.storm.checker import HISTORY, HISTORY_POSTGRES, Unreadable
from tests.support.fleet import Fleet
from tests.support.store.postgres_server import PostgresServer


class Store(ABC):
    """One store of one storm."""

    @abstractmethod
    async def make(self, fleet: Fleet) -> None:
        """Make it, with the checker's own witness in it, and let the fleet use it."""

    @abstractmethod
    def read(self, query: str) -> list[tuple[Any, ...]]:
        """What a query says, through a connection of its own.

        Raises:
            Unreadable: the database is away, which may be the storm's doing.
        """

    @abstractmethod
    async def trouble(self, chance: random.Random) -> None:
        """Something bad, that passes."""

    @abstractmethod
    def remove(self) -> None:
        """It is needed no more."""


class SqliteStore(Store):
    """A file."""

    async def make(self, fleet: Fleet) -> None:
        await fleet.make_store()
        self._path = Path(fleet.settings.database)
        with closing(sqlite3.connect(self._path)) as connection:
            connection.executescript(HISTORY)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    async def trouble(self, chance: random.Random) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return
            await asyncio.sleep(chance.choice([0.2, 1.0, 3.0]))
            connection.execute("ROLLBACK")

    def remove(self) -> None:
        pass


class PostgresStore(Store):
    """A server of its own."""

    async def make(self, fleet: Fleet) -> None:
        self._server = PostgresServer()
        await asyncio.to_thread(self._server.start)
        self._url = self._server.url(self._server.database())
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

    async def trouble(self, chance: random.Random) -> None:
        what = chance.choice(["restart", "kill", "freeze"])
        if what == "freeze":
            self._server.freeze()
            await asyncio.sleep(chance.choice([0.5, 2.0]))
            self._server.thaw()
            return
        await asyncio.to_thread(self._server.stop if what == "restart" else self._server.kill)
        await asyncio.sleep(chance.choice([0.0, 2.0]))
        await asyncio.to_thread(self._server.start)

    def remove(self) -> None:
        self._server.remove()


STORES: dict[str, type[Store]] = {"sqlite": SqliteStore, "postgresql": PostgresStore}
