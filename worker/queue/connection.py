"""Connections that never wait for ever, and what is wrong with a server in words."""

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, SSLConnection
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)
from redis.exceptions import AuthenticationWrongNumberOfArgsError, RedisError

from repo.base import StoreIdentity
from repo.errors import DecnetReaperError
from worker.queue.dsn import Server
from worker.queue.jobs import decode, encode

REDIS_ERRORS = (RedisError, OSError)
"""What a server that is away, frozen, read-only or not ours raises (OSError: refused, reset, timed out)."""

CONNECT_TIMEOUT = 2.0
"""Seconds for a connection to be made."""
SOCKET_TIMEOUT = 3.0
"""Seconds for any one answer. arq and redis-py have no limit of their own: a frozen server froze arq."""
SENTINEL_TIMEOUT = 1.0
"""Seconds for a sentinel to answer before the next is asked."""
OPERATION_TIMEOUT = 5.0
"""Seconds for one whole operation, waiting for a free connection included."""

_UNNAMED: dict[str, Any] = {"lib_name": None, "lib_version": None}
"""No command more for each connection, to say whose it is."""
_IN_SCRIPT = re.compile(r"\.? script: (?:[0-9a-f]{40}, )?on .*$")
"""What Redis adds to an error in a script; Valkey adds it without the script's hash."""
_TLS_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client's certificate, give ssl_certfile and ssl_keyfile",
    "TLSV1_ALERT_UNKNOWN_CA": "it doesn't trust our certificate",
    "WRONG_VERSION_NUMBER": "what answers there speaks no TLS",
}
_CLUSTER = ("MOVED ", "ASK ", "CROSSSLOT ", "CLUSTERDOWN ")
"""How a cluster's node begins its errors."""
_OTHER_STORE = "OTHERSTORE "
"""How our scripts begin the error that the queue is another store's."""


class QueueUnavailable(DecnetReaperError):
    """Redis can't be reached, refuses us, or is read-only; says which DSN (password removed) and why."""

    exit_status = 3


class QueueUnusable(QueueUnavailable):
    """This Redis will never do: it is a node of a cluster, or its queue is another store's."""


class ClusterNode(RedisError):
    """A server that says of itself that it is a node of a cluster."""


class _TLSConnection(SSLConnection):
    """Trusts the authority of the DSN alone, and reads its files anew each time, so that a renewed one holds.

    redis-py trusts the system's authorities too, and reads those holds the loop up for 50 ms each time.
    """

    def _connection_arguments(self) -> Mapping[str, Any]:
        for file in filter(None, (self.ca_certs, self.certfile, self.keyfile)):
            Path(file).open().close()  # an error of ssl doesn't name the file
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.check_hostname = self.check_hostname
        context.verify_mode = self.cert_reqs
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile)
        self.ssl_context.context = context
        return super()._connection_arguments()


class _MasterTLSConnection(SentinelManagedConnection, _TLSConnection):
    pass


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to whichever server the sentinels call the master; waits for a free one, as others do."""


def connect(server: Server, *, connections: int, queue: str) -> ArqRedis:
    """A client of at most so many connections; none is opened before it is needed."""
    options: dict[str, Any] = {
        "max_connections": connections,
        "timeout": OPERATION_TIMEOUT,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": SOCKET_TIMEOUT,
        "health_check_interval": 30,
        **_UNNAMED,
        **server.options,
    }
    if server.tls:
        options["connection_class"] = _MasterTLSConnection if server.master else _TLSConnection
    pool: BlockingConnectionPool
    if server.master:
        sentinel = Sentinel(())  # type: ignore[no-untyped-call]
        patience = {"socket_connect_timeout": SENTINEL_TIMEOUT, "socket_timeout": SENTINEL_TIMEOUT}
        theirs = {**patience, **server.sentinel_options}
        sentinel.sentinels = [client_at(server, *each, theirs) for each in server.sentinels]
        pool = _SentinelPool(server.master, sentinel, **options)  # type: ignore[no-untyped-call]
    else:
        pool = BlockingConnectionPool(**options)
    return ArqRedis(pool, job_serializer=encode, job_deserializer=decode, default_queue_name=queue)


def client_at(server: Server, host: str, port: int, options: Mapping[str, Any]) -> Redis:
    """A client of a machine beside the server, with options of redis-py's connection."""
    options = {"host": host, "port": port, **_UNNAMED, **options}
    if server.tls:
        options["connection_class"] = _TLSConnection
    return Redis.from_pool(ConnectionPool(**options))


async def disconnect(redis: ArqRedis) -> None:
    """Let go of all connections, those to sentinels too; a later call would open new ones."""
    await redis.aclose(close_connection_pool=True)
    if isinstance(redis.connection_pool, _SentinelPool):
        for sentinel in redis.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose(close_connection_pool=True)


def explain(server: Server, error: BaseException, store: StoreIdentity | None = None) -> str:
    """One line for people: which server, and what is wrong with it.

    Args:
        server: which.
        error: what redis-py raised.
        store: the caller's, for an error of our scripts.
    """
    return f"{server.name}: {_reason(server, error, store)}"


def _reason(server: Server, error: BaseException, store: StoreIdentity | None) -> str:
    text = _IN_SCRIPT.sub("", " ".join(str(error).split())) or type(error).__name__
    below = error.__context__
    if text.startswith(_OTHER_STORE):
        theirs, _, name = text.removeprefix(_OTHER_STORE).partition(" ")
        ours = f"{store.name} ({store.id})" if store else "ours"
        return (
            f"this queue belongs to the store {printable(name)} ({printable(theirs)}), not to {ours}:"
            " use that store, or give this one another Redis, or another database of it"
        )
    if _is_cluster(error):
        return "this is a Redis cluster, which can't be used: give a single server or Sentinel"
    if text.startswith("WRONGTYPE"):
        return f"a key that we use (decnet-reaper:...) is something else here, delete it ({text})"
    if isinstance(error, MasterNotFoundError) and "AuthenticationError" in text:
        return "the sentinels refuse us, check sentinel_username and sentinel_password"
    if isinstance(error, MasterNotFoundError):
        return f"no sentinel that answers knows a living master called {server.master}"
    if isinstance(error, AuthenticationWrongNumberOfArgsError):
        return "this server knows no users (they need Redis 6): leave the user out of the DSN"
    if isinstance(below, socket.gaierror):
        return f"its name can't be resolved ({below.strerror}): check the spelling, /etc/hosts and DNS"
    if isinstance(below, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {below.verify_message}"
    if isinstance(below, ssl.SSLError):
        return f"TLS failed: {_TLS_ALERTS.get(below.reason, below.reason or text)}"
    if text.startswith("Timeout connecting") and server.tls:
        return "no answer to TLS in time, is that a port for TLS?"
    if isinstance(below, ConnectionResetError) and server.tls:
        # Since TLS 1.3 it refuses a client after the client's side is done: a reset may overtake its alert.
        alert = (
            "TLSV1_ALERT_UNKNOWN_CA"
            if "ssl_certfile" in server.options
            else "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        )
        return f"{os.strerror(errno.ECONNRESET)}: if that goes on, {_TLS_ALERTS[alert]}"
    if isinstance(below, OSError) and below.errno:
        return f"{below.filename}: {below.strerror}" if below.filename else os.strerror(below.errno)
    return text


def printable(text: str) -> str:
    """Text from Redis, fit for a line."""
    return "".join(each if each.isprintable() else "?" for each in text[:300])


@contextlib.asynccontextmanager
async def reaching(server: Server, store: StoreIdentity | None = None) -> AsyncIterator[None]:
    """Turn whatever Redis does wrong, silence included, into `QueueUnavailable` or `QueueUnusable`."""
    task = asyncio.current_task()
    asked_to_end = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(OPERATION_TIMEOUT):
            yield
    except REDIS_ERRORS as error:
        kind = QueueUnusable if unusable(error) else QueueUnavailable
        raise kind(explain(server, error, store)) from error
    # redis-py sends by `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes as the
    # sending ends (python/cpython issue 86296): a loop that is to end would go on for ever.
    if task and task.cancelling() > asked_to_end:
        raise asyncio.CancelledError


def unusable(error: BaseException) -> bool:
    """Whether waiting doesn't mend it."""
    return _is_cluster(error) or str(error).startswith(_OTHER_STORE)


def _is_cluster(error: BaseException) -> bool:
    return isinstance(error, ClusterNode) or str(error).startswith(_CLUSTER)
