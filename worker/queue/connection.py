"""Connections that never wait for ever, from a DSN that is checked before anything is tried."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

from repo.errors import DecnetReaperError
from worker.queue.jobs import decode, encode

REDIS_ERRORS = (RedisError, OSError)
"""What a server that is away, frozen, read-only or not ours raises (OSError: refused, reset, timed out)."""

CONNECT_TIMEOUT = 2.0
"""Seconds for a connection to be made."""
SOCKET_TIMEOUT = 3.0
"""Seconds for any one answer. arq and redis-py have no limit of their own: a frozen server froze arq."""
OPERATION_TIMEOUT = 5.0
"""Seconds for one whole operation, waiting for a free connection included."""

UNIX_PATH_LIMIT = 107
"""Bytes in the path of a unix socket (sun_path in unix(7), less the closing zero)."""

_FORMS = "redis://[user:password@]host[:port][/db], rediss://... or unix:///path/of/socket[?db=N]"
_OPTIONS = {"db", "username", "password", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"}


class QueueUnavailable(DecnetReaperError):
    """Redis can't be reached, refuses us, or is read-only; says which DSN (password removed) and why."""

    exit_status = 3


class InvalidDSN(DecnetReaperError, ValueError):
    """No DSN; says what is wrong in one line, and never repeats what may be a password."""


@dataclass(frozen=True)
class Server:
    """Where the queue is: how to connect, and how to name it to people."""

    name: str
    """The DSN without user, password and options."""
    options: dict[str, Any]
    """Arguments of redis-py's connection."""

    def connect(self, *, connections: int, queue: str) -> ArqRedis:
        """A client of at most so many connections; none is opened before it is needed."""
        pool = BlockingConnectionPool(
            max_connections=connections,
            timeout=OPERATION_TIMEOUT,  # type: ignore[arg-type]  # seconds; redis-py annotates int
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=SOCKET_TIMEOUT,
            health_check_interval=30,
            lib_name=None,
            lib_version=None,
            **self.options,
        )
        return ArqRedis(pool, job_serializer=encode, job_deserializer=decode, default_queue_name=queue)

    def trouble(self, error: BaseException) -> str:
        """One line for people: which server, and what it did."""
        below = error.__context__
        if isinstance(below, OSError) and below.errno:
            return f"{self.name}: {os.strerror(below.errno)}"
        return f"{self.name}: {' '.join(str(error).split()) or type(error).__name__}"


def parse_dsn(dsn: str) -> Server:
    """Check a DSN. Raises `InvalidDSN`."""
    if not dsn.isprintable():
        raise InvalidDSN(f"the Redis DSN contains control characters; give {_FORMS}")
    try:
        url = urlsplit(dsn)
        port, query = url.port, parse_qs(url.query, strict_parsing=bool(url.query))
        options: dict[str, Any] = {**parse_url(dsn)}
    except ValueError:
        # The parser's own words could repeat a part of the password.
        raise InvalidDSN(
            f"the Redis DSN can't be read; give {_FORMS}; percent-encode special characters"
        ) from None
    if unknown := query.keys() - _OPTIONS:
        raise InvalidDSN(f"the Redis DSN has options that are unknown here: {', '.join(sorted(unknown))}")
    if url.fragment or port == 0 or int(options.get("db", 0)) < 0:
        raise InvalidDSN(f"the Redis DSN has a bad port, database or password; give {_FORMS}")
    if url.scheme == "unix":
        return _unix(url, options)
    if not re.fullmatch(r"(/\d*)?", url.path):
        raise InvalidDSN(f"the database in the Redis DSN must be a number; give {_FORMS}")
    options["socket_keepalive"] = True
    if url.scheme == "rediss":
        options["ssl_check_hostname"] = options.get("ssl_cert_reqs") != "none"
    host = options.get("host", "localhost")
    host = f"[{host}]" if ":" in host else host
    return Server(f"{url.scheme}://{host}:{port or 6379}/{options.get('db', 0)}", options)


def _unix(url: SplitResult, options: dict[str, Any]) -> Server:
    path = unquote(url.path)
    if url.hostname or not path.startswith("/") or path.endswith("/"):
        raise InvalidDSN("the Redis DSN needs the absolute path of a socket: unix:///path/of/socket[?db=N]")
    if (length := len(path.encode())) > UNIX_PATH_LIMIT:
        raise InvalidDSN(
            f"the socket's path in the Redis DSN has {length} bytes; the system allows {UNIX_PATH_LIMIT}"
        )
    return Server(f"unix://{path}?db={options.get('db', 0)}", options)


@contextlib.asynccontextmanager
async def reaching(server: Server) -> AsyncIterator[None]:
    """Turn whatever Redis does wrong, silence included, into `QueueUnavailable`."""
    task = asyncio.current_task()
    asked_to_end = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(OPERATION_TIMEOUT):
            yield
    except REDIS_ERRORS as error:
        raise QueueUnavailable(server.trouble(error)) from error
    # redis-py sends by `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes as the
    # sending ends (python/cpython issue 86296): a loop that is to end would go on for ever.
    if task and task.cancelling() > asked_to_end:
        raise asyncio.CancelledError
