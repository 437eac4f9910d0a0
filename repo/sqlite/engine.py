"""SQLite through aiosqlite: one connection that writes, one that reads, each with its own thread."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import aiosqlite

from repo.engine import Engine, Step, Transaction, Work
from repo.errors import StoreError, StoreUnavailable
from repo.migrations.revision import HEAD, VERSION_TABLE
from repo.models.statement import Compiled, Dialect, Statement, Values
from repo.sqlite.checkpoint import Checkpoints
from repo.sqlite.connection import SqliteFile
from repo.sqlite.errors import explained, is_refusal

T = TypeVar("T")

_dialect: Dialect = "sqlite"


class SqliteEngine(Engine):
    """One SQLite file."""

    commits_early = True

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(str(file.path))
        self._file = file
        self._checkpoints: Checkpoints | None = None
        self._connections: list[aiosqlite.Connection] = []

    async def _open(self) -> None:
        self._file.prepare()
        self._checkpoints = Checkpoints(self._file)
        # SQLite doesn't wait for whoever switches a new file to WAL, so that only one may do it
        await self._checkpoints.acquire()
        try:
            self._writer = await self._connect()
            self._waits = True
            if not await self._is_current():
                from repo.sqlite.migrate import bring_up  # SQLAlchemy and the tables: 0.3 s, for a new store

                await asyncio.to_thread(bring_up, self._file)
        finally:
            self._checkpoints.release()
        self._reader = await self._connect()
        await self._reader.execute_fetchall("SELECT 1 FROM sqlite_schema")  # so that -wal and -shm are there
        self._file.remember()

    async def _connect(self) -> aiosqlite.Connection:
        connection = aiosqlite.Connection(self._file.connect, iter_chunk_size=64)
        connection._thread.daemon = True  # a repository that was never closed must not hang at exit
        opening = asyncio.ensure_future(connection.__aenter__())
        try:
            await asyncio.shield(opening)
        except sqlite3.Error:
            connection._thread.join()  # it is ending, and would miss a loop that ends before it
            raise
        except asyncio.CancelledError:
            # aiosqlite forgets a connection that comes when nobody waits for it any more
            with suppress(sqlite3.Error):
                await opening
                await connection.close()
            raise
        self._connections.append(connection)
        return connection

    async def _is_current(self) -> bool:
        try:
            found = await self._writer.execute_fetchall(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return False
            raise
        return [version for (version,) in found] == [HEAD]

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
        self._let_go()

    def abandon(self) -> None:
        for connection in self._connections:
            connection.stop()
        self._let_go()

    def _let_go(self) -> None:
        self._connections.clear()
        self._file.forget()
        if self._checkpoints is not None:
            self._checkpoints.close()
            self._checkpoints = None

    async def rows(self, query: Statement, values: Values) -> list[dict[str, Any]]:
        self._file.check_same()
        try:
            return await _in(self._reader, self.fetch, self._reader._conn, query, values)
        except sqlite3.Error as error:
            raise explained(error, self._file.path, self._file.busy_timeout) from None

    def fetch(self, connection: sqlite3.Connection, query: Statement, values: Values) -> list[dict[str, Any]]:
        """The rows of a query; in the connection's thread."""
        compiled = query.on(_dialect)
        try:
            found = _fetch(connection, compiled, values)
        except sqlite3.OperationalError as error:
            if "Could not decode" not in str(error):
                raise
            found = list(self._decodable(connection, compiled, values))
        return self.read(compiled, found)

    def _decodable(
        self, connection: sqlite3.Connection, query: Compiled, values: Values
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query but those with text that is no UTF-8, which any other program may write."""
        connection.text_factory = _text
        try:
            found = _fetch(connection, query, values)
        finally:
            connection.text_factory = str
        for row in found:
            if any(isinstance(value, bytes) for value in row):
                self.leave_out(row, "a text in it is not UTF-8")
            else:
                yield row

    async def run_alone(self, step: Step, *, durable: bool = True) -> bool:
        return await _in(self._writer, self._run_alone, step, durable)

    def _run_alone(self, step: Step, durable: bool) -> bool:
        statement = step.statement.on(_dialect)
        connection = self._commits(durable)
        changes = connection.total_changes
        cursor = connection.execute(statement.text, statement.parameters(step.values))
        self._file.check_same()
        self._sync_if_nothing_was_written(connection, changes, durable)
        return cursor.rowcount == 1

    async def transact(self, work: Work[T], *, durable: bool = True) -> T:
        # All of it in one call of the thread: between two of them an event loop that is held up, by a log
        # that nobody reads for instance, would keep the write lock from every other process.
        return await _in(self._writer, self._transact, work, durable)

    async def sync(self) -> None:
        await _in(self._writer, self._file.sync)

    def _transact(self, work: Work[T], durable: bool) -> T:
        connection = self._commits(durable)
        changes = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        try:
            done = _run_through(work(_Transaction(self, connection)))
            self._file.check_same()
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                connection.execute("ROLLBACK")
            raise
        self._sync_if_nothing_was_written(connection, changes, durable)
        return done

    def _sync_if_nothing_was_written(
        self, connection: sqlite3.Connection, before: int, durable: bool
    ) -> None:
        # whoever committed early before it relies on it, and SQLite syncs only what it writes
        if durable and connection.total_changes == before:
            self._file.sync()

    def _commits(self, durable: bool) -> sqlite3.Connection:
        """The writer, whose next commit is seen by others when it is on the disk, or before that."""
        if self._file.failed is not None:
            raise self._file.failed
        connection = self._writer._conn
        if self._file.durable and durable != self._waits:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._waits = durable
        return connection

    async def tidy_up(self) -> None:
        if self._checkpoints is not None:
            await self._checkpoints.run_if_due(self._writer)

    def is_refusal(self, error: Exception) -> bool:
        return is_refusal(error)

    def explained(self, error: Exception) -> StoreError | None:
        if isinstance(error, sqlite3.Error):
            return explained(error, self._file.path, self._file.busy_timeout)
        if isinstance(error, OSError):
            return StoreUnavailable(
                f"{self.name}: the disk may have lost what was written ({error.strerror}); see the kernel's"
                " log, then restart"
            )
        return None

    async def facts(self) -> dict[str, str]:
        async def ask(question: str) -> str:
            (found,) = await self._reader.execute_fetchall(question)
            return str(found[0])

        try:
            self._file.check_same()
            return {
                "path": self.name,
                "schema": await ask(f"SELECT version_num FROM {VERSION_TABLE}"),  # noqa: S608
                "sqlite_version": await ask("SELECT sqlite_version()"),
                "journal_mode": await ask("PRAGMA journal_mode"),
                "integrity": await ask("PRAGMA integrity_check(1)"),
            }
        except sqlite3.Error as error:
            raise explained(error, self._file.path, self._file.busy_timeout) from None


class _Transaction(Transaction):
    """In the writer's thread: nothing here waits for an event loop."""

    def __init__(self, engine: SqliteEngine, connection: sqlite3.Connection) -> None:
        self._engine = engine
        self._connection = connection

    async def rows(self, query: Statement, values: Values) -> list[dict[str, Any]]:
        return self._engine.fetch(self._connection, query, values)

    async def run(self, steps: Sequence[Step]) -> bool:
        batches: dict[tuple[Compiled, bool], list[tuple[Any, ...]]] = {}
        for statement, values, exactly_one in steps:
            compiled = statement.on(_dialect)
            batches.setdefault((compiled, exactly_one), []).append(compiled.parameters(values))
        for (compiled, exactly_one), rows in batches.items():
            cursor = self._connection.executemany(compiled.text, rows)
            if exactly_one and cursor.rowcount != len(rows):
                return False
        return True

    async def change(self, statement: Statement, values: Values) -> int:
        compiled = statement.on(_dialect)
        cursor = self._connection.execute(compiled.text, compiled.parameters(values))
        return cursor.rowcount

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        self._connection.execute("SAVEPOINT one")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # gone, where a full disk has rolled back by itself
                self._connection.execute("ROLLBACK TO one")
                self._connection.execute("RELEASE one")
            raise
        self._connection.execute("RELEASE one")


async def _in(connection: aiosqlite.Connection, do: Callable[..., T], *arguments: object) -> T:
    """Done in the connection's own thread."""
    done: T = await connection._execute(do, *arguments)  # type: ignore[no-untyped-call]
    return done


def _fetch(connection: sqlite3.Connection, query: Compiled, values: Values) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query.text, query.parameters(values))
    try:
        return cursor.fetchall()
    finally:
        cursor.close()  # or a read that failed would keep what it saw for every later one


def _text(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _run_through(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    work.close()
    raise RuntimeError("a transaction may wait for nothing but the store")
