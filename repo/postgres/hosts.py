"""The hosts of a fleet, as an operator asks for them, and his word that one is lost."""

import psycopg

from repo.errors import InvalidHost, StoreUnusable
from repo.lifecycle import Host
from repo.models.times import to_iso
from repo.postgres.errors import explained
from repo.postgres.server import Connection, Server

_MAY_ASK = "SELECT has_table_privilege('decnet_reaper_host', 'SELECT')"
# What a daemon says of itself may be hidden from who is no superuser, and is a text of its own host's.
_HOSTS = """
WITH held AS MATERIALIZED (
    SELECT key, coalesce(application_name, '') AS daemon
    FROM decnet_reaper_held_lock LEFT JOIN pg_stat_activity USING (pid)
), known AS MATERIALIZED (
    SELECT h.*, decnet_reaper_lock_key('host', host_uuid) AS key FROM decnet_reaper_host h
)
SELECT host_uuid, ARRAY(SELECT daemon FROM held WHERE held.key = known.key ORDER BY daemon),
    role_name IS NOT NULL, seen_at, absent_since, lost_at
FROM known ORDER BY host_uuid
"""
_LOST = """
UPDATE decnet_reaper_host SET lost_at = coalesce(lost_at, now()), was_lost_at = NULL
WHERE host_uuid = %(host)s AND NOT decnet_reaper_is_present(host_uuid)
"""
_KNOWN = "SELECT FROM decnet_reaper_host WHERE host_uuid = %(host)s"

FORGET = """
DELETE FROM decnet_reaper_host h WHERE role_name IS NULL AND seen_at IS NULL AND NOT EXISTS (
    SELECT FROM decky_lifecycle l WHERE l.host_uuid = h.host_uuid AND l.status IN ('pending', 'running')
)
"""
"""Hosts that were removed, once their last open row has ended."""


async def list_hosts(connection: Connection) -> list[Host]:
    """What `BaseRepository.list_hosts` returns."""
    if await (await connection.execute(_MAY_ASK)).fetchone() != (True,):
        return []
    hosts: list[Host] = []
    for host, daemons, has_role, *moments in await (await connection.execute(_HOSTS)).fetchall():
        seen_at, absent_since, lost_at = [None if moment is None else to_iso(moment) for moment in moments]
        hosts.append(
            {
                "host_uuid": host or None,
                "present": bool(daemons),
                "daemons": daemons,
                "has_role": has_role,
                "seen_at": seen_at,
                "absent_since": None if daemons else absent_since,
                "lost_at": None if daemons else lost_at,
            }
        )
    return hosts


async def lose_host(server: Server, host_uuid: str | None) -> None:
    """An operator's word that a host is lost: the next sweep of a reaper that may closes its rows.

    Args:
        server: the store, as an administrator.
        host_uuid: which; None is the master's own.

    Raises:
        InvalidHost: it is present, or nobody has ever heard of it.
        StoreUnusable, StoreUnreachable: nothing was changed.
    """
    wanted = {"host": host_uuid or ""}
    connection = await server.connect()
    try:
        if (await connection.execute(_LOST, wanted)).rowcount:
            return
        known = await (await connection.execute(_KNOWN, wanted)).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        raise StoreUnusable(f"{server.name}: a host's role may not say that of a host") from None
    except psycopg.Error as error:
        raise explained(error, server.name) from None
    finally:
        await connection.close()
    if known is not None:
        raise still_present(host_uuid)
    raise InvalidHost(f"{_named(host_uuid)}: not known, decnet-reaper hosts shows those that are")


def still_present(host_uuid: str | None) -> InvalidHost:
    """A host that is there can neither be given up nor forgotten."""
    return InvalidHost(
        f"{_named(host_uuid)} is present: its own reaper judges its rows; stop its daemons first"
    )


def _named(host_uuid: str | None) -> str:
    return "the master's own host" if host_uuid is None else f"host {host_uuid}"
