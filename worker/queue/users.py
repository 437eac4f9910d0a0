"""A Redis user for each host: it can touch its own host's keys, and nothing else.

A honeypot's host must be expected to fall. With the credentials of such a user nobody enqueues to, takes
from, reads or empties another host's queue, sees what other clients do, or learns another's password. What it
still can do is cost the server time and memory (a script that never ends, a list that never ends): then the
queue is slow or full for all, which loses nothing, and work goes on from the store.

Redis doesn't replicate its users: each server of a Sentinel set-up gets them, and each sentinel.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import quote

from redis.exceptions import ResponseError

from repo.base import ID
from worker.queue.connection import QueueUnavailable, client_at, connect, disconnect, reaching
from worker.queue.dsn import Server, parse_dsn
from worker.queue.jobs import key_patterns

_OLDEST = (6, 2)
"""Redis whose users can be held to patterns of channels too."""
_COMMANDS = (
    # a worker's loop and the reapers' cron
    *("ping", "blpop", "evalsha", "eval", "script|load", "select"),
    *("watch", "unwatch", "multi", "exec", "exists", "psetex", "zadd"),
    # what their scripts do, and a queue's client
    *("get", "set", "getrange", "del", "zrem", "zscore", "zcard", "zrangebyscore", "lpush", "ltrim"),
)
_CREDENTIALS = {"username", "password", "sentinel_username", "sentinel_password"}
_SENTINEL_COMMANDS = ("ping", "sentinel|masters")


class UsersUnsupported(QueueUnavailable):
    """This Redis can't hold a user to some keys, or lets everybody in anyway; says what to do."""


class HostUser(NamedTuple):
    """The credentials of a host.

    Attributes:
        name: of the Redis user.
        dsn: what goes into the host's credential `redis`; holds the password.
        kept: whether every server has written the user to its disk; if not, it is gone with a restart.
    """

    name: str
    dsn: str
    kept: bool


def user_name(host_uuid: str) -> str:
    """The name of a host's Redis user."""
    return f"decnet_host_{host_uuid}"


async def add_user(dsn: str, host_uuid: str) -> HostUser:
    """Make a host's user, or give the one that it has a new password.

    Args:
        dsn: of an administrator (`ACL` is needed).
        host_uuid: whose keys it may touch.

    Raises:
        InvalidDSN, QueueUnavailable, UsersUnsupported: no user was made, or not on every server; try again.
    """
    if not ID.fullmatch(host_uuid):
        raise UsersUnsupported(f"{host_uuid!r} is no host id")  # it becomes a pattern of keys
    server = parse_dsn(dsn)
    name, password = user_name(host_uuid), secrets.token_urlsafe(32)
    may = [f"~{pattern}" for pattern in key_patterns(host_uuid)] + [f"+{each}" for each in _COMMANDS]
    kept = []
    async with _servers(server) as (servers, sentinels):
        for each in (*servers, *sentinels):
            await _check(server, each)
        for each in servers:
            kept.append(await _set_user(each, name, password, may))
        for each in sentinels:
            kept.append(
                await _set_user(each, name, password, [f"+{command}" for command in _SENTINEL_COMMANDS])
            )
    return HostUser(name, _dsn_for(dsn, server, name, password), all(kept))


async def remove_user(dsn: str, host_uuid: str) -> bool:
    """Remove a host's user and end its connections; whether there was one.

    Raises:
        InvalidDSN, QueueUnavailable: it may be left on some servers; try again.
    """
    server, name, found = parse_dsn(dsn), user_name(host_uuid), False
    async with _servers(server) as (servers, sentinels):
        for each in (*servers, *sentinels):
            # Whoever is connected as this user is disconnected by it.
            found |= bool(await each.execute_command("ACL DELUSER", name))
            await _keep(each)
    return found


@asynccontextmanager
async def _servers(server: Server) -> AsyncIterator[tuple[list[Any], list[Any]]]:
    """Clients of all servers that hold the queue or may come to hold it, and of their sentinels."""
    first: Any = connect(server, connections=2, queue="")
    servers, sentinels = [first], []
    try:
        async with reaching(server):
            if server.master:
                manager = first.connection_pool.sentinel_manager
                sentinels = list(manager.sentinels)
                slaves = await manager.discover_slaves(server.master)
                servers += [client_at(server, host, port, server.options) for host, port in slaves]
            yield servers, sentinels
    finally:
        await disconnect(first)
        for each in servers[1:]:
            await each.aclose()


async def _check(server: Server, client: Any) -> None:
    facts = await client.info("server")
    version = str(facts["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise UsersUnsupported(f"{server.name}: users for hosts need Redis 6.2 or later; this is {version}")
    if {"on", "nopass"} <= set((await client.acl_getuser("default"))["flags"]):
        raise UsersUnsupported(
            f"{server.name}: everybody who reaches it may do everything, with no password: set requirepass"
            " (at sentinels too) before hosts get users of their own"
        )


async def _set_user(client: Any, name: str, password: str, may: list[str]) -> bool:
    # As a hash, so that no MONITOR and no slow log shows the password.
    digest = sha256(password.encode()).hexdigest()
    await client.execute_command("ACL SETUSER", name, "reset", "on", f"#{digest}", *may)
    await client.execute_command("CLIENT KILL", "USER", name)
    return await _keep(client)


async def _keep(client: Any) -> bool:
    """Have the server write its users down, in the one way or the other; whether it could."""
    for command in ("ACL SAVE", "CONFIG REWRITE", "SENTINEL FLUSHCONFIG"):
        try:
            await client.execute_command(command)
        except ResponseError:
            continue
        return True
    return False


def _dsn_for(dsn: str, server: Server, name: str, password: str) -> str:
    """The administrator's DSN with the host's credentials in place of his own."""
    scheme, _, rest = dsn.partition("://")
    authority, slash, path = rest.partition("/")
    path, _, query = path.partition("?")
    options = [each for each in query.split("&") if each and each.partition("=")[0] not in _CREDENTIALS]
    if scheme == "unix":
        options += [f"username={quote(name)}", f"password={quote(password)}"]
        credentials = ""
    else:
        credentials = f"{quote(name)}:{quote(password)}@"
    if server.master:
        options += [f"sentinel_username={quote(name)}", f"sentinel_password={quote(password)}"]
    address = authority.rpartition("@")[2]
    return f"{scheme}://{credentials}{address}{slash}{path}" + ("?" + "&".join(options) if options else "")
