"""The stores that the contract is tried on: one class for each engine."""

import asyncio
import re
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from repo.factory import get_repository
from tests.support.store.postgres_server import PostgresServer


class Refused(Exception):
    """What the database refused, in its own words."""


class Shell(ABC):
    """A plain client of the database, with no code of ours, as an administrator would open it."""

    @abstractmethod
    def execute(self, statement: str, values: Mapping[str, Any] = {}) -> list[tuple[Any, ...]]:
        """Run a statement whose values are named `:so`, commit it, and return its rows.

        Raises:
            Refused: a constraint or a guard said no.
        """

    def insert(self, **columns: Any) -> None:
        """Add a row of `decky_lifecycle`."""
        names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        self.execute(f"INSERT INTO decky_lifecycle ({names}) VALUES ({marks})", columns)  # noqa: S608


class Store(ABC):
    """One database with our schema and no row.

    Attributes:
        url: what `get_repository` takes, in any process.
    """

    url: str

    @abstractmethod
    def shell(self) -> AbstractContextManager[Shell]:
        """A client of it."""


class SqliteStore(Store):
    """A file.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.url = str(path)

    @contextmanager
    def shell(self) -> Iterator[Shell]:
        """The sqlite3 shell, as it were: no pragma is set."""
        with closing(sqlite3.connect(self.url, isolation_level=None)) as connection:
            yield _SqliteShell(connection)


class _SqliteShell(Shell):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] = {}) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.IntegrityError as error:
            raise Refused(str(error)) from None


def made(server: PostgresServer) -> str:
    """A database of this server with the store's schema; its name."""
    database = server.database()

    async def make() -> None:
        async with get_repository(url=server.url(database)):
            pass

    thread = threading.Thread(target=asyncio.run, args=[make()])  # whether or not a loop runs here
    thread.start()
    thread.join()
    return database


def store_at(url: str) -> Store:
    """The store that a URL or a path names."""
    return PostgresStore(url) if url.startswith("postgresql://") else SqliteStore(Path(url))


class PostgresStore(Store):
    """A database of a server.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def shell(self) -> Iterator[Shell]:
        """psql, as it were, of an administrator who writes times in UTC."""
        with psycopg.connect(self.url, autocommit=True, options="-c TimeZone=UTC") as connection:
            yield _PostgresShell(connection)


class _PostgresShell(Shell):
    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Mapping[str, Any] = {}) -> list[tuple[Any, ...]]:
        text = re.sub(r"(?<![\w:]):([a-z_]\w*)", r"%(\1)s", statement) if values else statement
        try:
            cursor = self._connection.execute(text, values or None)
        except psycopg.IntegrityError as error:
            raise Refused(error.diag.message_primary) from None
        return cursor.fetchall() if cursor.description else []
