"""An observer of the hosts: who is present, for how long the others have been absent, and which are lost.

When the database itself was away nobody was seen, which says nothing about the hosts: it counts only within
one unbroken session of its own.
"""

import math
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import psycopg

from repo.lifecycle import Returned, Sighting
from repo.postgres.errors import explained
from repo.postgres.hosts import FORGET
from repo.postgres.presence import open_session
from repo.postgres.server import Connection, Server, close

_MAY_LOOK = "SELECT has_table_privilege('decnet_reaper_host', 'UPDATE')"

_LOOK = """
WITH held AS MATERIALIZED (SELECT DISTINCT key FROM decnet_reaper_held_lock)
SELECT host_uuid, decnet_reaper_lock_key('host', host_uuid) IN (SELECT key FROM held),
    seen_at, lost_at IS NOT NULL, lost_logged, was_lost_at IS NOT NULL, role_name IS NOT NULL
FROM decnet_reaper_host
"""

# A captured host may hold a lock on its own line, and makes nobody wait.
_ABSENT = """
UPDATE decnet_reaper_host SET absent_since = now() WHERE host_uuid IN (
    SELECT host_uuid FROM decnet_reaper_host WHERE host_uuid = ANY (%s) AND absent_since IS NULL
    FOR UPDATE SKIP LOCKED
)
"""

# Not one that was there since the look: it may have come and gone again while the observer stood still.
_LOST = """
UPDATE decnet_reaper_host SET lost_at = coalesce(lost_at, now()), lost_logged = true, was_lost_at = NULL
WHERE host_uuid IN (
    SELECT host_uuid FROM decnet_reaper_host h
    JOIN unnest(%s::text[], %s::timestamptz[]) AS looked (host, at)
    ON h.host_uuid = looked.host AND h.seen_at IS NOT DISTINCT FROM looked.at
    WHERE NOT lost_logged AND NOT decnet_reaper_is_present(host_uuid) FOR UPDATE OF h SKIP LOCKED
) RETURNING host_uuid
"""
_RETURNED = """
WITH back AS (
    SELECT host_uuid, was_lost_at FROM decnet_reaper_host
    WHERE host_uuid = ANY (%s) AND was_lost_at IS NOT NULL FOR UPDATE SKIP LOCKED
)
UPDATE decnet_reaper_host h SET was_lost_at = NULL FROM back WHERE h.host_uuid = back.host_uuid
RETURNING h.host_uuid, greatest(0, extract(epoch FROM now() - back.was_lost_at))::float8
"""


class _Line(NamedTuple):
    """What a look finds of one host.

    Attributes:
        reported: a reaper has logged that it is lost.
        was_lost: it is back, and no reaper has logged that yet.
    """

    host: str
    present: bool
    seen_at: datetime | None
    lost: bool
    reported: bool
    was_lost: bool
    has_role: bool


class Observer:
    """Counts for how long each host has been absent.

    Args:
        server: the primary, and not through a pooler.
        lost_after: seconds after which a host is lost; infinity: never. May be set later.
        longest_gap: seconds between two looks after which the count begins anew, since a host may have been
            there meanwhile; more than it takes from one sweep to the next.
        clock: in seconds; monotonic.
    """

    def __init__(
        self,
        server: Server,
        lost_after: float,
        *,
        longest_gap: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self.lost_after = lost_after
        self._longest_gap = longest_gap
        self._clock = clock
        self._connection: Connection | None = None
        self._looked_at = 0.0
        self._absent: dict[str, float] = {}
        self._newly_absent: list[str] = []
        self._newly_lost: dict[str, datetime | None] = {}
        self._back: set[str] = set()
        self._removed = False

    @property
    def due_in(self) -> float:
        """Seconds from the last look to when the next host will have been absent for long enough."""
        missing = [self.lost_after - each for each in self._absent.values() if each < self.lost_after]
        return min(missing, default=math.inf)

    async def may_look(self) -> bool:
        """Whether this role may know of other hosts; one that `hosts add` made may not.

        Raises:
            StoreUnavailable: it can't be asked.
        """
        try:
            connection = await self._opened()
            return await (await connection.execute(_MAY_LOOK)).fetchone() == (True,)
        except psycopg.Error as error:
            await self.close()
            raise explained(error, self._server.name) from None

    async def look(self) -> dict[str | None, Sighting]:
        """Every host that was ever present, by its id (None: the master's).

        Raises:
            StoreUnavailable: nothing is known, and the count begins anew.
        """
        try:
            connection = await self._opened()
            lines = [_Line(*found) for found in await (await connection.execute(_LOOK)).fetchall()]
        except psycopg.Error as error:
            await self.close()
            raise explained(error, self._server.name) from None
        self._count({line.host for line in lines if not line.present})
        found = {line.host: self._sighting(line) for line in lines}
        self._newly_absent = [host for host, absent_for in self._absent.items() if not absent_for]
        self._newly_lost = {
            line.host: line.seen_at for line in lines if found[line.host].lost and not line.reported
        }
        self._back = {line.host for line in lines if line.present and line.was_lost}
        self._removed = any(not line.has_role and line.seen_at is None for line in lines)
        return {host or None: sighting for host, sighting in found.items()}

    async def changes(self) -> tuple[list[str | None], list[Returned]]:
        """Write down which hosts the last look found absent or lost, and which were lost and are back.

        Those that were removed are forgotten, once they have no open row any more.

        Returns:
            The hosts that are lost, by the count or by an operator's word, and those that are back. Of
            several observers one is told of each.

        Raises:
            StoreUnavailable: nothing was written, and the count begins anew.
        """
        if not (self._newly_absent or self._newly_lost or self._back or self._removed):
            return [], []
        try:
            connection = await self._opened()
            await connection.execute(_ABSENT, (self._newly_absent,))
            newly_lost = (list(self._newly_lost), list(self._newly_lost.values()))
            lost = await (await connection.execute(_LOST, newly_lost)).fetchall()
            back = await (await connection.execute(_RETURNED, (list(self._back),))).fetchall()
            if self._removed:
                await connection.execute(FORGET)
        except psycopg.Error as error:
            await self.close()
            raise explained(error, self._server.name) from None
        return [host or None for (host,) in lost], [Returned(host or None, seconds) for host, seconds in back]

    async def close(self) -> None:
        """End the session; what was counted is forgotten."""
        connection, self._connection = self._connection, None
        await close(connection)

    async def _opened(self) -> Connection:
        if self._connection is None:
            self._absent = {}
            self._connection = await open_session(self._server, "decnet-reaper observer")
        return self._connection

    def _count(self, absent: set[str]) -> None:
        now = self._clock()
        if (step := now - self._looked_at) > self._longest_gap:
            self._absent = {}
        self._absent = {host: self._absent[host] + step if host in self._absent else 0.0 for host in absent}
        self._looked_at = now

    def _sighting(self, line: _Line) -> Sighting:
        if line.present:
            return Sighting(True)
        absent_for = self._absent[line.host]
        # One that was never there can't be lost: `hosts add` has just made its role.
        counted = line.seen_at is not None and absent_for >= self.lost_after
        return Sighting(False, absent_for, line.lost or counted)
