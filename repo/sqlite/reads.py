"""Reads: short, on a connection of their own, which no writer makes wait."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection

from repo.sqlite.connection import SqliteFile
from repo.sqlite.errors import SqliteError, explained
from repo.sqlite.threads import Call, ServingThread, answer

T = TypeVar("T")
Query = Callable[[Connection], Any]


class Reads(ServingThread[Query]):
    """The only reader of this process.

    Args:
        file: the store.
        connection: for this thread alone.
    """

    def __init__(self, file: SqliteFile, connection: Connection) -> None:
        self._file = file
        self._connection = connection
        super().__init__("decnet-store-reader")

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` returns; never a cursor, since an open one keeps the log from shrinking.

        One statement sees one state of the store; a query of several begins a transaction for that.

        Raises:
            StoreUnavailable: what is wrong with the store.
        """
        result: T = await self.ask(query)
        return result

    def serve(self, calls: Sequence[Call[Query]]) -> None:
        for call in calls:
            try:
                self._file.check_same()
                call.value = call.work(self._connection)
            except SqliteError as error:
                call.error = explained(error, self._file.path, self._file.busy_timeout)
            except Exception as error:
                call.error = error
        answer(calls)  # at once, since each wake-up costs more than a read does

    def shut(self) -> None:
        self._connection.close()
