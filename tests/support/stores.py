"""The stores that the contract is tried on: one class for each engine."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any


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
