"""PostgreSQL through psycopg: one session that writes, one that reads, each opened again when it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import psycopg

from repo.engine import Engine, Step, Transaction, TransactionLost, Work
from repo.errors import StoreError
from repo.lifecycle import Host
from repo.models.statement import Compiled, Dialect, Statement, Values
from repo.postgres.errors import explained, is_lost, is_refusal, is_repeatable
from repo.postgres.hosts import list_hosts
from repo.postgres.migrate import bring_up, schema_of
from repo.postgres.server import Connection, Server
from repo.postgres.session import Session

T = TypeVar("T")

_dialect: Dialect = "postgresql"
_MAY_PRUNE = "SELECT has_table_privilege('decky_lifecycle', 'DELETE')"
_MOST_ROWS = 100  # of one statement: each may bring a document of a megabyte
_LOCK = "SELECT decnet_reaper_lock_deckies(%s::text[], %s::text[])"


class PostgresEngine(Engine):
    """One database of a PostgreSQL server, or of several of which one is the primary.

    Args:
        server: where it is.
        patience: seconds that a server is waited for that was there before.
        create: whether to make the tables where there are none.
    """

    def __init__(self, server: Server, *, patience: float, create: bool) -> None:
        super().__init__(server.name)
        self._server = server
        self._create = create
        self.patience = patience
        self._new_sessions()

    def _new_sessions(self) -> None:
        self._writer = Session(self._server, self.patience, prepare=True)
        self._reader = Session(self._server, self.patience, prepare=False)

    async def _open(self) -> None:
        self._new_sessions()
        await self._writer.open()
        await bring_up(self._server, self._writer, self._create)
        cursor = await (await self._writer.connection()).execute(_MAY_PRUNE)
        self.prunes = await cursor.fetchone() == (True,)

    async def close(self) -> None:
        await self._writer.close()
        await self._reader.close()

    def abandon(self) -> None:
        self._writer.abandon()
        self._reader.abandon()

    async def rows(self, query: Statement, values: Values) -> list[dict[str, Any]]:
        compiled = query.on(_dialect)
        return self.read(compiled, await self._read(lambda connection: _fetch(connection, compiled, values)))

    async def run_alone(self, step: Step, *, durable: bool = True) -> bool:
        if self._writer.pooled or step.statement.one_at_a_time:
            return await self.transact(lambda transaction: transaction.run([step]))
        compiled = step.statement.on(_dialect)
        connection = await self._writer.connection()
        try:
            cursor = await connection.execute(compiled.text, compiled.parameters(step.values), prepare=True)
        except psycopg.Error as error:
            await self._end_read_only(error)
            raise _lost(error, maybe_committed=True) from error
        return cursor.rowcount == 1

    async def transact(self, work: Work[T], *, durable: bool = True) -> T:
        connection = await self._writer.connection()
        try:
            done = await work(_Transaction(self, connection, self._writer.begin))
        except BaseException as error:
            await _roll_back(connection)
            if isinstance(error, psycopg.Error):
                await self._end_read_only(error)
                raise _lost(error, maybe_committed=False) from error
            raise
        try:
            await connection.commit()
        except psycopg.Error as error:
            raise _lost(error, maybe_committed=True) from error
        return done

    async def _end_read_only(self, error: psycopg.Error) -> None:
        """A session that landed on a standby stays there: the next write is to look for the primary."""
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            await self._writer.end()

    async def sync(self) -> None:
        """Nothing: no commit is early, or a failover would forget a claim whose worker goes on."""

    async def tidy_up(self) -> None:
        """Nothing: PostgreSQL's own daemons do."""

    def is_refusal(self, error: Exception) -> bool:
        return is_refusal(error)

    def explained(self, error: Exception) -> StoreError | None:
        if isinstance(error, TransactionLost):
            error = error.cause
        return explained(error, self.name) if isinstance(error, psycopg.Error) else None

    async def hosts(self) -> list[Host]:
        return await self._read(list_hosts)

    async def facts(self) -> dict[str, str]:
        async def ask(connection: Connection) -> dict[str, str]:
            async def show(name: str) -> str:
                found = await (await connection.execute("SELECT current_setting(%s)", (name,))).fetchone()
                return str(found[0]) if found else ""

            return {
                "path": self.name,
                "schema": await schema_of(connection) or "",
                "postgresql_version": await show("server_version"),
                "synchronous_commit": await show("synchronous_commit"),
                "synchronous_standby_names": await show("synchronous_standby_names"),
                "pooler": "yes" if self._reader.pooled else "no",
                "integrity": "ok",
            }

        return await self._read(ask)

    async def _read(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        while True:
            connection = await self._reader.connection()
            try:
                return await read(connection)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise explained(error, self.name) from None


class _Transaction(Transaction):
    """Begun with its first statement, in the same round trip."""

    def __init__(self, engine: PostgresEngine, connection: Connection, begin: Sequence[str]) -> None:
        self._engine = engine
        self._connection = connection
        self._begin = begin

    async def rows(self, query: Statement, values: Values) -> list[dict[str, Any]]:
        await self._begun()
        compiled = query.on(_dialect)
        return self._engine.read(compiled, await _fetch(self._connection, compiled, values))

    async def run(self, steps: Sequence[Step]) -> bool:
        batches: dict[tuple[Statement, bool], list[Values]] = {}
        for statement, values, exactly_one in steps:
            batches.setdefault((statement, exactly_one), []).append(values)
        ran: list[tuple[int, psycopg.AsyncCursor[Any]]] = []
        async with self._connection.pipeline():
            await self._begun()
            await self._lock(steps)
            for (statement, exactly_one), rows in batches.items():
                # in one order everywhere, so that two transactions seldom wait for each other's rows
                rows.sort(key=lambda values: str(values.get("row_id", "")))
                for start in range(0, len(rows), _MOST_ROWS):
                    some = rows[start : start + _MOST_ROWS]
                    cursor = self._connection.cursor()
                    await _run(cursor, statement, some)
                    if exactly_one:
                        ran.append((len(some), cursor))
        return all(cursor.rowcount == wanted for wanted, cursor in ran)

    async def change(self, statement: Statement, values: Values) -> int:
        await self._begun()
        compiled = statement.on(_dialect)
        cursor = await self._connection.execute(compiled.text, compiled.parameters(values))
        return cursor.rowcount

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self._begun()
        await self._connection.execute("SAVEPOINT one")
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):  # gone with the session
                await self._connection.execute("ROLLBACK TO one")
                await self._connection.execute("RELEASE one")
            raise
        await self._connection.execute("RELEASE one")

    async def _begun(self) -> None:
        begin, self._begin = self._begin, ()
        for statement in begin:
            await self._connection.execute(statement)

    async def _lock(self, steps: Sequence[Step]) -> None:
        deckies = {
            tuple(str(step.values[name]) for name in step.statement.one_at_a_time)
            for step in steps
            if step.statement.one_at_a_time
        }
        if deckies:
            await self._connection.execute(_LOCK, tuple(map(list, zip(*deckies, strict=True))), prepare=True)


async def _run(cursor: psycopg.AsyncCursor[Any], statement: Statement, rows: Sequence[Values]) -> None:
    """One statement for all rows where there is one: it reads the table's constraints once."""
    if len(rows) > 1 and statement.of_many is not None and _differ(rows, statement.one_at_a_time):
        compiled = statement.of_many.on(_dialect)
        wanted = [name for name in compiled.names if name not in compiled.constants]
        lists = {name: [row[name] for row in rows] for name in wanted}
        await cursor.execute(compiled.text, compiled.parameters(lists), prepare=True)
    else:
        compiled = statement.on(_dialect)
        await cursor.executemany(compiled.text, [compiled.parameters(row) for row in rows])


def _differ(rows: Sequence[Values], names: Sequence[str]) -> bool:
    """Whether no two rows have the same values under these names, if there are any names."""
    return not names or len({tuple(row[name] for name in names) for row in rows}) == len(rows)


async def _fetch(connection: Connection, query: Compiled, values: Values) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query.text, query.parameters(values))
    return await cursor.fetchall()


async def _roll_back(connection: Connection) -> None:
    """Whatever it says: a session that is over has rolled back by itself."""
    with suppress(psycopg.Error):
        await asyncio.shield(connection.rollback())


def _lost(error: psycopg.Error, *, maybe_committed: bool) -> Exception:
    """The same error, unless all of it may be tried again."""
    if is_lost(error):
        return TransactionLost(error, maybe_committed)
    return TransactionLost(error, False) if is_repeatable(error) else error
