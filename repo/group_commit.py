"""Group commit: many callers, one writer, one transaction for all that wait.

A durable commit costs one fsync, whether it holds one write or fifty. So callers put down what they want
written and wait; the writer thread takes all that is there, runs it in one `BEGIN IMMEDIATE` with one
`executemany` per statement, commits, and wakes everybody at once. While it commits, the next group gathers.

A group is written in the hope that all is well, which is known from the number of rows that changed. If
something is not, all of it is rolled back and each write gets a savepoint of its own, so that an illegal
one fails alone. Calls that wait at the same time have no order among them, except that writes of one row
keep theirs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from repo.errors import StoreUnavailable
from repo.sqlite.checkpoint import Checkpoints
from repo.sqlite.connection import SqliteFile
from repo.sqlite.errors import SqliteError, explained, is_refusal
from repo.sqlite.prepared import Prepared
from repo.sqlite.threads import Call, ServingThread, answer

T = TypeVar("T")

_LARGEST_GROUP = 500


@dataclass(slots=True)
class Write(Generic[T]):
    """One caller's change.

    Attributes:
        row: id of the row that it changes; writes of one row happen in the order they were asked for.
        steps: statements with their values; each must change exactly one row.
        result: what the caller gets when they did, asked in the same transaction. With no steps it does
            the writing itself.
        refused: asked when a step didn't, and everything is as before: says what the caller gets instead,
            or raises it.
    """

    row: str
    steps: Sequence[tuple[Prepared, Mapping[str, Any]]]
    result: Callable[[Connection], T]
    refused: Callable[[Connection], T]


class GroupCommit(ServingThread[Write[Any]]):
    """The only writer of this process.

    Args:
        file: the store.
        connection: for this thread alone; its transactions begin with `BEGIN IMMEDIATE`.
        checkpoints: run after a group has been answered.
    """

    def __init__(self, file: SqliteFile, connection: Connection, checkpoints: Checkpoints) -> None:
        self._file = file
        self._connection = connection
        self._driver: Any = connection.connection.driver_connection
        self._checkpoints = checkpoints
        super().__init__("decnet-store-writer")

    async def write(self, write: Write[T]) -> T:
        """Write it, durably; then return its result.

        Raises:
            StoreError: what `refused` raised, or what is wrong with the store.
        """
        result: T = await self.ask(write)
        return result

    def serve(self, calls: Sequence[Call[Write[Any]]]) -> None:
        for group in _groups(calls):
            self._commit(group)
            answer(group)
            self._checkpoints.run_if_due(self._driver)

    def shut(self) -> None:
        self._connection.close()
        self._checkpoints.close()

    def _commit(self, group: Sequence[Call[Write[Any]]]) -> None:
        try:
            try:
                self._in_one_transaction(_together, group)
            except Exception as error:
                if _is_of_the_store(error):
                    raise
                self._in_one_transaction(_one_by_one, group)
        except SqliteError as error:
            _fail(group, explained(error, self._file.path, self._file.busy_timeout))
        except StoreUnavailable as error:
            _fail(group, error)

    def _in_one_transaction(
        self,
        apply: Callable[[Connection, Sequence[Call[Write[Any]]]], None],
        group: Sequence[Call[Write[Any]]],
    ) -> None:
        with self._connection.begin():
            apply(self._connection, group)
            self._file.check_same()


class _Missed(Exception):
    """A step changed no row."""


def _groups(calls: Sequence[Call[Write[Any]]]) -> Iterator[list[Call[Write[Any]]]]:
    group: list[Call[Write[Any]]] = []
    rows: set[str] = set()
    for call in calls:
        if call.work.row in rows or len(group) == _LARGEST_GROUP:
            yield group
            group, rows = [], set()
        group.append(call)
        rows.add(call.work.row)
    if group:
        yield group


def _together(connection: Connection, group: Sequence[Call[Write[Any]]]) -> None:
    batches: dict[Prepared, list[tuple[Any, ...]]] = {}
    for call in group:
        for statement, values in call.work.steps:
            batches.setdefault(statement, []).append(statement.parameters(values))
    for statement, rows in batches.items():
        _run(connection, statement, rows)
    for call in group:
        call.value = call.work.result(connection)


def _one_by_one(connection: Connection, group: Sequence[Call[Write[Any]]]) -> None:
    for call in group:
        try:
            call.value = _alone(connection, call.work)
        except Exception as error:
            if _is_of_the_store(error):
                raise
            call.error = error


def _alone(connection: Connection, write: Write[T]) -> T:
    try:
        with connection.begin_nested():
            for statement, values in write.steps:
                _run(connection, statement, [statement.parameters(values)])
            return write.result(connection)
    except _Missed:
        return write.refused(connection)
    except SqliteError as error:
        if not is_refusal(error):
            raise
        return write.refused(connection)


def _run(connection: Connection, statement: Prepared, rows: list[tuple[Any, ...]]) -> None:
    if statement.run(connection, rows) != len(rows):
        raise _Missed


def _is_of_the_store(error: Exception) -> bool:
    """Whether it would hit every write alike."""
    return isinstance(error, StoreUnavailable) or (isinstance(error, SqliteError) and not is_refusal(error))


def _fail(group: Sequence[Call[Write[Any]]], error: Exception) -> None:
    for call in group:
        call.error = error
