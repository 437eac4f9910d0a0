"""A host's presence: a session of each of its daemons, and in it a lock that is named for the host.

A host is present while one of its daemons has its session. PostgreSQL lets go of the session's lock when the
process dies, and within 9 s of a cut cable; no heartbeat is written.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable

import psycopg

from repo.errors import StoreUnavailable, StoreUnusable
from repo.postgres.errors import explained
from repo.postgres.server import Connection, Server, close, is_pooled

# What the server does for this session. TCP: keep-alives notice a cable that was cut while the session was
# idle (5 + 3 * 1 s), the user time-out one that was cut while an answer was under way; on a unix socket they
# do nothing. It is below 8 s, so that Linux, which asks it at each probe, gives up at the one of 8 s and not
# at the next. The rest: an idle session is what this is. Names that the server doesn't know are left out.
_SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "7500",
    "DateStyle": "ISO",
    "TimeZone": "UTC",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "0",
}
_SET_UP = """
SELECT set_config(name, %(wanted)s::json ->> name, false) FROM pg_settings
WHERE name IN (SELECT json_object_keys(%(wanted)s::json))
"""

_HOLD = "SELECT decnet_reaper_hold_presence(%s)"

_RETRY = 0.5


class Presence:
    """The session that says that this host is there.

    Args:
        server: where the store is; not through a pooler.
        host_uuid: this host; None is the master's own.
        daemon: what `hosts` shows of whose session this is.
    """

    def __init__(self, server: Server, host_uuid: str | None, daemon: str = "decnet-reaper") -> None:
        self._server = server
        self._host = host_uuid or ""
        self._daemon = daemon
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Open the session and take the lock.

        Raises:
            StoreUnavailable: with what to do about it; a pooler is refused.
        """
        connection = await open_session(self._server, self._daemon)
        try:
            await connection.execute(_HOLD, (self._host,))
        except psycopg.Error as error:
            await close(connection)
            raise explained(error, self._server.name) from None
        self._connection = connection

    async def ended(self) -> str:
        """Wait until the session is over; why it is."""
        assert self._connection is not None  # noqa: S101
        try:
            async for _ in self._connection.notifies():
                pass
        except psycopg.Error as error:
            return str(explained(error, self._server.name))
        return "closed"

    async def close(self) -> None:
        """Let go: from now on this daemon says nothing about its host."""
        connection, self._connection = self._connection, None
        await close(connection)

    async def keep(self, report: Callable[[str | None], None]) -> None:
        """Hold the session for ever, and open another one whenever it ends.

        Args:
            report: called with None when the session is open, and with the reason, once, when it ended or
                can't be opened.
        """
        reported: str | None = None
        while True:
            try:
                if self._connection is None:
                    await self.open()
                report(reported := None)
                reason = await self.ended()
            except StoreUnavailable as error:
                reason = str(error)
            finally:
                await self.close()
            if not reported:
                report(reported := reason)
            await asyncio.sleep(_RETRY)


async def open_session(server: Server, name: str) -> Connection:
    """A session that ends when its process does, or is cut off, and that nobody else ends.

    Args:
        server: the primary, and not through a pooler.
        name: what the server shows of whose it is.

    Raises:
        StoreUnavailable: with what to do about it; a pooler or a standby is refused.
    """
    connection = await server.connect({"application_name": name})
    try:
        await connection.execute(_SET_UP, {"wanted": json.dumps(_SESSION)})
        await _check(server, connection)
    except BaseException as error:
        with contextlib.suppress(psycopg.Error):
            await close(connection)
        if isinstance(error, psycopg.Error):
            raise explained(error, server.name) from None
        raise
    return connection


async def _check(server: Server, connection: Connection) -> None:
    if await is_pooled(connection):
        raise StoreUnusable(
            f"{server.name}: behind a pooler such as PgBouncer, which breaks the session that says that a"
            " host is there; name the server itself (presence_database)"
        )
    cursor = await connection.execute("SELECT pg_is_in_recovery()")
    if await cursor.fetchone() == (True,):
        raise StoreUnusable(
            f"{server.name}: a standby, which knows no presence; name the primary, or all servers with"
            " target_session_attrs=read-write"
        )
