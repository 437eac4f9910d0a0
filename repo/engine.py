"""What a database has to do for the repository: the interface beside `sqlite/` and `postgres/`.

A statement (`repo.models.statement`) is executed on the driver itself: SQLAlchemy's own execution costs ten
times what SQLite does (measured: 150 of 170 microseconds for a row by its id).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, TypeVar

from repo.errors import StoreError, StoreUnavailable
from repo.lifecycle import Host
from repo.models.statement import Compiled, Statement, Values

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Step(NamedTuple):
    """One statement with the values that it is to run with once.

    Attributes:
        exactly_one: whether a run that doesn't change exactly one row means that the write is refused.
    """

    statement: Statement
    values: Values
    exactly_one: bool = True


class TransactionLost(Exception):
    """A transaction did not commit, or nobody knows whether it did; all of it may be tried again.

    Attributes:
        cause: the driver's error.
        maybe_committed: whether a repetition may find what it wants to write already written.
    """

    def __init__(self, cause: Exception, maybe_committed: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.maybe_committed = maybe_committed


class Reader(ABC):
    """Reads that all see the same state."""

    @abstractmethod
    async def rows(self, query: Statement, values: Values) -> list[dict[str, Any]]:
        """All rows of a query, JSON-ready. One that can't be read is logged once by its id, and left out."""

    async def first(self, query: Statement, values: Values) -> dict[str, Any] | None:
        """The first row of a query."""
        return next(iter(await self.rows(query, values)), None)


class Transaction(Reader):
    """A transaction that writes. Where the database lets other writers in beside it, a row that was read `FOR
    UPDATE` can't change before it commits; all else may, from one statement to the next.

    Attributes:
        repeats: whether an earlier try of the same writes may have been committed, its answer lost.
    """

    repeats: bool = False

    @abstractmethod
    async def run(self, steps: Sequence[Step]) -> bool:
        """Run every step; those of the same statement together.

        Returns:
            Whether each of them changed exactly one row, where it has to. (Where not, some steps may be
            left out: the caller is going to roll back.)
        """

    @abstractmethod
    async def change(self, statement: Statement, values: Values) -> int:
        """Run one statement that may change any number of rows; how many it changed."""

    @abstractmethod
    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """What is done in it is undone where it is left by an exception; the transaction goes on."""


Work = Callable[[Transaction], Coroutine[Any, Any, T]]


class Engine(Reader):
    """One open database, used from one event loop. `rows` reads on a connection that no writer makes wait.

    Attributes:
        name: how messages call the store: a path, or a URL without its password.
        patience: seconds for which a write is tried again whose row another session holds; 0 where the
            database itself waits.
        prunes: whether this user may remove rows.
        commits_early: whether a commit may be seen before it would survive a power cut.
    """

    name: str
    patience: float = 0.0
    prunes: bool = True
    commits_early: bool = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._unreadable: set[str] = set()

    def leave_out(self, found: Sequence[Any], reason: str) -> None:
        """Say once of a row that it can't be read; its id is its first value."""
        if (which := str(found[0])) not in self._unreadable:
            self._unreadable.add(which)
            _log.error("%s: row %s can't be read and is left out: %s", self.name, which, reason)

    def read(self, query: Compiled, found: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
        """The rows of a query, from the driver's. One that can't be read must not hide the others."""
        rows = []
        for each in found:
            try:
                rows.append(query.row(each))
            except (TypeError, ValueError, RecursionError) as error:
                self.leave_out(each, str(error))
        return rows

    async def open(self) -> None:
        """Connect, and bring the schema up.

        Raises:
            StoreUnavailable: with what to do about it.
        """
        try:
            await self._open()
        except BaseException as error:
            await self.close()
            if not isinstance(error, Exception):
                raise
            if (known := self.explained(error)) is not None:
                raise known from None
            if isinstance(error, StoreUnavailable) and self.name not in str(error):
                raise type(error)(f"{self.name}: {error}") from None
            raise

    @abstractmethod
    async def _open(self) -> None:
        """Do it; may raise what the driver does, and leave things open, which `open` sees to."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of every connection."""

    @abstractmethod
    def abandon(self) -> None:
        """The same without an event loop, for a repository that was never closed: no hang, no warning."""

    @abstractmethod
    async def run_alone(self, step: Step, *, durable: bool = True) -> bool:
        """Run one step as a transaction of its own; whether it changed exactly one row.

        Args:
            step: the step.
            durable: return when it would survive a power cut; else that may be so after `sync` only.

        Raises:
            StoreReplaced: what was written is not in the store that is there now.
        """

    @abstractmethod
    async def transact(self, work: Work[T], *, durable: bool = True) -> T:
        """Do `work` in a transaction that writes; committed if no exception leaves it.

        Args:
            work: awaits nothing but the transaction. An engine may run it in another thread, so that a busy
                event loop keeps no other writer waiting.
            durable: as for `run_alone`.

        Raises:
            StoreReplaced: nothing was committed.
        """

    @abstractmethod
    async def sync(self) -> None:
        """Return when all that was committed would survive a power cut."""

    @abstractmethod
    async def tidy_up(self) -> None:
        """Called after each group of writes has been answered, and now and then with none."""

    @abstractmethod
    def is_refusal(self, error: Exception) -> bool:
        """Whether a constraint or a guard refused a write, so that only this write has failed."""

    @abstractmethod
    def explained(self, error: Exception) -> StoreError | None:
        """The store's own error for one of the driver's; None if it isn't the driver's."""

    async def hosts(self) -> list[Host]:
        """What `BaseRepository.list_hosts` returns; none where the database knows no sessions."""
        return []

    @abstractmethod
    async def facts(self) -> dict[str, str]:
        """What `BaseRepository.check` returns."""
