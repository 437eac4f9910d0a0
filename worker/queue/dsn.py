"""Where the queue is: a DSN, checked before anything is tried, and never repeated with its password."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio.connection import parse_url

from repo.errors import DecnetReaperError

UNIX_PATH_LIMIT = 107
"""Bytes in the path of a unix socket (sun_path in unix(7), less the closing zero)."""

_SENTINEL_PORT = 26379
_FORMS = (
    "redis://[user:password@]host[:port][/db], rediss://..., unix:///path/of/socket[?db=N] or "
    "redis+sentinel://[user:password@]host[:port],host[:port].../master[?db=N]"
)
_TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_OPTIONS = {"db", "username", "password", "ssl_cert_reqs", "ssl_check_hostname", *_TLS_FILES}
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}


class InvalidDSN(DecnetReaperError, ValueError):
    """No DSN; says what is wrong in one line, and never repeats what may be a password."""


@dataclass(frozen=True)
class Server:
    """How to reach the queue, and how to name it to people."""

    name: str
    """The DSN without user, password and options."""
    options: dict[str, Any]
    """Arguments of redis-py's connection to the server."""
    master: str = ""
    """Under which name the sentinels know the server; empty where it is addressed itself."""
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of redis-py's connection to a sentinel."""

    @property
    def tls(self) -> bool:
        """Whether it is reached through TLS."""
        return self.name.startswith("rediss")

    @property
    def machines(self) -> list[str]:
        """Names or addresses of the server, or of its sentinels; none for a unix socket."""
        if self.sentinels:
            return [host for host, _ in self.sentinels]
        return [] if "path" in self.options else [self.options.get("host", "localhost")]


def parse_dsn(dsn: str) -> Server:
    """Check a DSN.

    Raises:
        InvalidDSN: what is wrong with it.
    """
    if not dsn.isprintable():
        raise InvalidDSN(f"the Redis DSN contains control characters; give {_FORMS}")
    if meant := _meant(dsn):
        raise InvalidDSN(f"the Redis DSN {dsn!r} has no scheme; did you mean {meant}?")
    scheme, _, rest = dsn.partition("://")
    if scheme in {"redis+sentinel", "rediss+sentinel"}:
        return _sentinel(scheme, rest)
    url, query, options = _read(dsn)
    _check_options(query.keys() - _OPTIONS)
    _check_tls(url.scheme, options)
    if url.scheme == "unix":
        return _unix(url, options)
    if not re.fullmatch(r"(/\d*)?", url.path):
        raise InvalidDSN(f"the database in the Redis DSN must be a number; give {_FORMS}")
    options["socket_keepalive"] = True
    host = options.get("host", "localhost")
    return Server(f"{url.scheme}://{_address(host, url.port or 6379)}/{options.get('db', 0)}", options)


def _meant(dsn: str) -> str | None:
    """The DSN that somebody meant who left out the scheme."""
    if re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9a-f:]+\]):\d{1,5}(/\d*)?|localhost", dsn):
        return f"redis://{dsn}"
    return f"unix://{dsn}" if re.fullmatch(r"/[\w./-]+\.sock(et)?", dsn) else None


def _read(dsn: str) -> tuple[SplitResult, dict[str, list[str]], dict[str, Any]]:
    try:
        url = urlsplit(dsn)
        port, query = url.port, parse_qs(url.query, strict_parsing=bool(url.query))
        options: dict[str, Any] = {**parse_url(dsn)}
    except ValueError:
        # The parser's own words could repeat a part of the password.
        raise InvalidDSN(
            f"the Redis DSN can't be read; give {_FORMS}; percent-encode special characters"
        ) from None
    if url.fragment or port == 0 or int(options.get("db", 0)) < 0:
        raise InvalidDSN(f"the Redis DSN has a bad port, database or password; give {_FORMS}")
    return url, query, options


def _check_options(unknown: set[str]) -> None:
    if unknown:
        raise InvalidDSN(f"the Redis DSN has options that are unknown here: {', '.join(sorted(unknown))}")


def _check_tls(scheme: str, options: dict[str, Any]) -> None:
    given = options.keys() & (_TLS_FILES | {"ssl_cert_reqs", "ssl_check_hostname"})
    if not scheme.startswith("rediss"):
        if given:
            what = "leave that out for a unix socket" if scheme == "unix" else "begin it with rediss://"
            raise InvalidDSN(f"the Redis DSN has {', '.join(sorted(given))} without TLS; {what}")
        return
    if len(given & {"ssl_certfile", "ssl_keyfile"}) == 1:
        raise InvalidDSN("a client certificate in the Redis DSN needs both ssl_certfile and ssl_keyfile")
    if options.setdefault("ssl_cert_reqs", "required") not in {"required", "optional", "none"}:
        raise InvalidDSN("ssl_cert_reqs in the Redis DSN must be required, optional or none")
    for name in sorted(given & _TLS_FILES):
        try:
            Path(options[name]).open("rb").close()
        except OSError as error:
            raise InvalidDSN(
                f"{name} in the Redis DSN names {options[name]}, which can't be read: {error.strerror}"
            ) from None
    options.setdefault("ssl_check_hostname", options["ssl_cert_reqs"] != "none")


def _unix(url: SplitResult, options: dict[str, Any]) -> Server:
    path = unquote(url.path)
    if url.hostname or not path.startswith("/") or path.endswith("/"):
        raise InvalidDSN("the Redis DSN needs the absolute path of a socket: unix:///path/of/socket[?db=N]")
    if (length := len(path.encode())) > UNIX_PATH_LIMIT:
        raise InvalidDSN(
            f"the socket's path in the Redis DSN has {length} bytes; the system allows {UNIX_PATH_LIMIT}"
        )
    return Server(f"unix://{path}?db={options.get('db', 0)}", options)


def _sentinel(scheme: str, rest: str) -> Server:
    """`rest` is what follows "redis+sentinel://": credentials, sentinels, the master's name, options."""
    plain = scheme.removesuffix("+sentinel")
    authority, slash, path = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    url, query, options = _read(f"{plain}://{credentials}{at}localhost{slash}{path}")
    _check_options(query.keys() - _OPTIONS - _SENTINEL_OPTIONS.keys())
    master = unquote(url.path).strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", master):
        raise InvalidDSN(f"the Redis DSN needs the master's name as the sentinels know it; give {_FORMS}")
    sentinels = tuple(_sentinel_address(plain, each) for each in hosts.split(","))
    for name in ("host", "path"):
        options.pop(name, None)
    options["socket_keepalive"] = True
    _check_tls(plain, options)
    given = options.keys() & _SENTINEL_OPTIONS.keys()
    for_sentinels = {_SENTINEL_OPTIONS[name]: options.pop(name) for name in given}
    for_sentinels |= {name: value for name, value in options.items() if name.startswith(("ssl_", "socket_"))}
    named = ",".join(_address(*each) for each in sentinels)
    name = f"{scheme}://{named}/{master}?db={options.get('db', 0)}"
    return Server(name, options, master, sentinels, for_sentinels)


def _sentinel_address(plain: str, address: str) -> tuple[str, int]:
    url, _, options = _read(f"{plain}://{address}")
    if url.path or url.query or url.username or "host" not in options:
        raise InvalidDSN(f"the Redis DSN has an empty or malformed sentinel; give {_FORMS}")
    return options["host"], url.port or _SENTINEL_PORT


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
