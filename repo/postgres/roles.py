"""A database role for each host: it sees and moves its own host's rows, by the legal steps, and no more.

A honeypot's host must be expected to fall. What the role may do is granted here; which rows it sees is
decided by the policies of the schema, by `session_user`, which no session can change.

Limits. The role can keep its own rows locked, and old versions of rows from being vacuumed, for as long as it
keeps a transaction open (`pg_stat_activity` shows it), and use the server's processor. Locks that are named
freely (`pg_advisory_lock` and the like) are taken from everybody in this database; that needs a superuser.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import psycopg
from psycopg import sql

from repo.errors import InvalidHost, StoreUnusable
from repo.postgres.errors import explained, first_line
from repo.postgres.hosts import FORGET, still_present
from repo.postgres.server import Connection, Server

CONNECTIONS = 20
"""Sessions that one host may have: its daemons take three each, the rest is for commands."""

_INSERTED = (
    *("id", "decky_name", "host_uuid", "operation", "status", "started_at", "updated_at", "payload"),
    *("attempt", "retry_of", "deliveries", "enqueued_at", "owner", "claimed_at"),
)
_UPDATED = (
    *("status", "outcome", "error", "started_at", "updated_at", "completed_at", "owner", "claimed_at"),
    *("retry_id", "deliveries", "enqueued_at", "cancel_requested_at"),
)
_DEPLOYED = ("decky_name", "host", "document", "services", "lifecycle_id", "updated_at")

# INSERT and UPDATE by column, since a role that has them for a whole table may lock it and stop everybody.
_GRANTS = (
    "GRANT SELECT ON decky_lifecycle, decky_deployed, decnet_reaper_version, decnet_reaper_store TO {role}",
    "GRANT INSERT ({inserted}), UPDATE ({updated}) ON decky_lifecycle TO {role}",
    "GRANT INSERT ({deployed}), UPDATE ({deployed}) ON decky_deployed TO {role}",
    "GRANT EXECUTE ON FUNCTION decnet_reaper_own_host(), decnet_reaper_hold_presence(varchar),"
    " decnet_reaper_lock_deckies(text[], text[]), decnet_reaper_undeploy(varchar, varchar) TO {role}",
    "GRANT CONNECT ON DATABASE {database} TO {role}",
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
)

# What everybody may do in a new database: make objects, and from them fill the disk or deceive others.
_TAKEN = (
    "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC",
    "REVOKE TEMPORARY, CREATE ON DATABASE {database} FROM PUBLIC",
)
_FREE_FUNCTIONS = """
SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
AND (proname ~ '^pg_(try_)?advisory_'
    OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite'))
AND has_function_privilege('public', oid, 'EXECUTE')
"""
_STORE = """
SELECT n.nspname, current_database(), pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n
ON n.oid = c.relnamespace WHERE c.oid = to_regclass('decky_lifecycle')
"""
# Two administrators at once would change the same grants ("tuple concurrently updated"). No host's role can
# take this lock, and nobody else does.
_ONE_AT_A_TIME = "LOCK TABLE decnet_reaper_host IN SHARE UPDATE EXCLUSIVE MODE"
_OWNERS_LOCKS = "pg_advisory_xact_lock(bigint), pg_try_advisory_lock_shared(bigint)"


_KNOWN = """
SELECT role_name, r.oid FROM decnet_reaper_host LEFT JOIN pg_roles r ON rolname = role_name
WHERE host_uuid = %s AND (role_name IS NOT NULL OR seen_at IS NOT NULL)
"""
_END_SESSIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usesysid = %s"
_TRIES = 5
_REMOVED = """
UPDATE decnet_reaper_host SET role_name = NULL, seen_at = NULL, lost_at = coalesce(lost_at, now())
WHERE host_uuid = %s AND NOT decnet_reaper_is_present(host_uuid)
"""


class HostRole(NamedTuple):
    """What goes into a host's configuration.

    Attributes:
        role: the user to connect as.
        password: kept nowhere else; the server has only what verifies it.
    """

    role: str
    password: str


@asynccontextmanager
async def adding_host(server: Server, host_uuid: str) -> AsyncIterator[HostRole]:
    """Make the role of a host, once the block has done the rest; nothing is made unless all of it can be.

    Args:
        server: the store, as an administrator who may create roles; the first time as a superuser.
        host_uuid: the host, as its daemons have it in HOST_UUID.

    Yields:
        The role as it will be. It is not there yet, and a host that has one already is refused before.

    Raises:
        StoreUnusable: the administrator may not do it, or the role is there already.
        StoreUnreachable: no server.
    """
    role, password = role_name(host_uuid), secrets.token_urlsafe(32)
    connection = await server.connect()
    try:
        async with connection.transaction():
            await _add(connection, host_uuid, role, password)
            yield HostRole(role, password)
    except psycopg.errors.DuplicateObject:
        raise StoreUnusable(
            f"{server.name}: the role {role} is there already; `hosts remove {host_uuid}` takes it away"
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreUnusable(
            f"{server.name}: {first_line(error)}; name an administrator of the database, a superuser for the"
            " first host"
        ) from None
    except psycopg.Error as error:
        raise explained(error, server.name) from None
    except StoreUnusable as error:
        raise StoreUnusable(f"{server.name}: {error}") from None
    finally:
        await connection.close()


async def add_host(server: Server, host_uuid: str) -> HostRole:
    """Make the role of a host that needs nothing else; as `adding_host` does."""
    async with adding_host(server, host_uuid) as role:
        return role


async def remove_host(server: Server, host_uuid: str) -> bool:
    """Forget a host: its role goes, its sessions end, its running rows are then a lost host's.

    It is shown until its last open row has ended.

    Returns:
        Whether it was known.

    Raises:
        InvalidHost: it has no role that could be taken away, and is present.
        StoreUnusable, StoreUnreachable: as for `add_host`; try again.
    """
    connection = await server.connect()
    try:
        return await _remove(connection, host_uuid)
    except psycopg.Error as error:
        raise explained(error, server.name) from None
    finally:
        await connection.close()


def role_name(host_uuid: str) -> str:
    """The role of a host: at most 63 bytes, as PostgreSQL wants it."""
    name = f"decnet_host_{host_uuid}"
    return name if len(name) <= 63 else f"decnet_host_{hashlib.sha256(host_uuid.encode()).hexdigest()[:40]}"


async def _add(connection: Connection, host_uuid: str, role: str, password: str) -> None:
    found = await (await connection.execute(_STORE)).fetchone()
    if found is None:
        raise StoreUnusable("there is no store yet: start a daemon or run `doctor` first")
    schema, database, owner = map(sql.Identifier, found)
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    names = {
        **{"role": sql.Identifier(role), "schema": schema, "database": database, "owner": owner},
        **{"inserted": _columns(_INSERTED), "updated": _columns(_UPDATED), "deployed": _columns(_DEPLOYED)},
    }
    await connection.execute(
        sql.SQL(
            "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT"
            " CONNECTION LIMIT {} PASSWORD {}"
        ).format(names["role"], sql.Literal(CONNECTIONS), sql.Literal(verifier))
    )
    await connection.execute(_ONE_AT_A_TIME)
    await connection.execute(
        # a host that was removed stays lost until its running rows are closed, or it is there
        "INSERT INTO decnet_reaper_host AS known (host_uuid, role_name) VALUES (%s, %s)"
        " ON CONFLICT (host_uuid) DO UPDATE SET role_name = excluded.role_name, lost_logged = false,"
        " lost_at = CASE WHEN EXISTS (SELECT FROM decky_lifecycle l WHERE l.host_uuid = known.host_uuid"
        " AND l.status = 'running') THEN known.lost_at END",
        (host_uuid, role),
    )
    for statement in (*_GRANTS, *_TAKEN):
        await connection.execute(sql.SQL(statement).format(**names))
    await _take_free_functions(connection, owner)


async def _take_free_functions(connection: Connection, owner: sql.Identifier) -> None:
    """Nobody names a lock freely, since a host's lock could then be anybody's."""
    if free := await _free_functions(connection):
        await connection.execute(
            sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(sql.SQL(_OWNERS_LOCKS), owner)
        )
        functions = sql.SQL(", ").join([sql.SQL(name) for name in free])
        await connection.execute(sql.SQL("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC").format(functions))
        if await _free_functions(connection):
            raise StoreUnusable("only a superuser can take advisory locks from everybody: name one")


async def _free_functions(connection: Connection) -> list[str]:
    return [name for (name,) in await (await connection.execute(_FREE_FUNCTIONS)).fetchall()]


async def _remove(connection: Connection, host_uuid: str) -> bool:
    found = await (await connection.execute(_KNOWN, (host_uuid,))).fetchone()
    if found is None:
        return False
    name, oid = found
    if name is not None:
        # Committed before its sessions end, or it would open another one meanwhile.
        await connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)))
    for left in reversed(range(_TRIES)):
        await connection.execute(_END_SESSIONS, (oid,))
        try:
            await _forget(connection, host_uuid, name)
            break
        except InvalidHost:  # a session whose login was under way
            if name is None or not left:
                raise
    await connection.execute(_END_SESSIONS, (oid,))
    return True


async def _forget(connection: Connection, host_uuid: str, name: str | None) -> None:
    async with connection.transaction():
        await connection.execute(_ONE_AT_A_TIME)
        if name is not None:
            # what it has is dropped by its members only, unless by a superuser
            for statement in ("GRANT {} TO CURRENT_USER", "DROP OWNED BY {}", "DROP ROLE {}"):
                await connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        if not (await connection.execute(_REMOVED, (host_uuid,))).rowcount:
            raise still_present(host_uuid)
        await connection.execute(FORGET)


def _columns(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
