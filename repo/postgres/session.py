"""A session that is opened again when it ends: after a restart, a failover, or a backend that was killed."""

import asyncio
import contextlib
import os
import time

import psycopg
from psycopg.types.string import TextLoader

from repo.errors import StoreUnreachable, StoreUnusable
from repo.postgres.errors import explained
from repo.postgres.server import Connection, Server, close, is_pooled

# Every query has its index, and none may depend on statistics: a new table has none, one that was just filled
# wrong ones. A bitmap scan reads the entries of rows that ended, which a plain index scan marks as dead.
_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
}

# A write that waits for a row that another session holds gives up after lock_timeout, so that the group goes
# on without it, and is tried again later. A process of ours that is stopped in a transaction makes others
# wait for idle_in_transaction_session_timeout at most.
SET_UP = """
SELECT set_config('TimeZone', 'UTC', {local}), set_config('DateStyle', 'ISO', {local}),
    set_config('default_transaction_isolation', 'read committed', {local}),
    set_config('lock_timeout', '500ms', {local}),
    set_config('idle_in_transaction_session_timeout', '30s', {local}),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, {local})
""" + "".join(f", set_config('{name}', '{value}', {{local}})" for name, value in _PLANS.items())

_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)


class Session:
    """One connection, of which the first must be had at once, and any later one is waited for.

    Args:
        server: where to.
        patience: seconds.
        prepare: whether statements are prepared when they are first run, and not only if they come often.

    Attributes:
        pooled: whether a pooler hands each transaction to another session.
    """

    def __init__(self, server: Server, patience: float, *, prepare: bool) -> None:
        self._server = server
        self._patience = patience
        self._prepare = prepare
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._pid = os.getpid()
        self._closed = False
        self.pooled = False

    @property
    def begin(self) -> tuple[str, ...]:
        """The statements that begin a transaction."""
        return ("BEGIN", SET_UP.format(local="true")) if self.pooled else ("BEGIN",)

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailable: with what to do about it.
        """
        connection = await self._server.connect()
        try:
            self.pooled = await is_pooled(connection)
            await connection.execute(SET_UP.format(local="false"))
        except psycopg.Error as error:
            await close(connection)
            raise explained(error, self._server.name) from None
        # as text: `Engine.read` makes values of them, or leaves out what is none
        for name in ("timestamptz", "jsonb"):
            connection.adapters.register_loader(name, TextLoader)
        connection.prepare_threshold = None if self.pooled else 0 if self._prepare else 5
        self._connection = connection

    async def connection(self) -> Connection:
        """The connection; another one where it has ended.

        Raises:
            StoreUnreachable: no server took a session for as long as we wait.
            StoreUnusable: closed, or opened in the process that this one was forked from.
        """
        if self._pid != os.getpid():
            raise StoreUnusable("this repository was opened before a fork: open one in each process")
        if (found := self._connection) is not None and not found.closed:
            return found
        async with self._opening:
            if self._closed:
                raise StoreUnusable("this repository is closed: call initialize() first")
            if self._connection is None or self._connection.closed:
                await self._open_again()
        assert self._connection is not None  # noqa: S101
        return self._connection

    async def _open_again(self) -> None:
        deadline = time.monotonic() + self._patience
        pauses = iter(_PAUSES)
        while True:
            try:
                return await self.open()
            except StoreUnreachable as error:
                pause = next(pauses, _PAUSES[-1])
                if time.monotonic() + pause > deadline:
                    raise StoreUnreachable(f"{error}; waited {self._patience:g} s") from None
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Let go of the connection, for good."""
        self._closed = True
        await self.end()

    async def end(self) -> None:
        """Let go of the connection; the next call opens another one."""
        connection, self._connection = self._connection, None
        with contextlib.suppress(psycopg.Error):
            await close(connection)

    def abandon(self) -> None:
        """The same without an event loop."""
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            connection.pgconn.finish()
