"""One PostgreSQL server, or several of which one is the primary: its name, and how a session begins."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from repo.errors import StoreUnusable
from repo.postgres.errors import explained, first_line

Connection = AsyncConnection[tuple[Any, ...]]

OLDEST = 13
_PERSONAL = {"user", "password", "passfile", "service", "sslkey", "sslcert", "sslpassword"}

# Without these a cut cable is noticed after minutes: https://www.postgresql.org/docs/current/libpq-connect.html
_DEFAULTS = {
    "fallback_application_name": "decnet-reaper",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
    "client_encoding": "UTF8",
}


class Server:
    """Where the store is.

    Args:
        url: `postgresql://...` with libpq's own parameters: several hosts, `target_session_attrs`, `sslmode`,
            `service`, `passfile` and so on.
        password: used where the URL has none; libpq's PGPASSWORD and PGPASSFILE work too.

    Attributes:
        name: the server and the database as a person knows them, without any secret.

    Raises:
        StoreUnusable: libpq can't read the URL.
    """

    def __init__(self, url: str, password: str | None = None) -> None:
        scheme, _, rest = url.partition("://")
        if "@" in rest.partition("/")[2].partition("?")[0]:  # a part of a password, which nobody may see
            raise StoreUnusable(
                "the database's URL has an @ behind its first /: write %2F for a / and %40 for an @ in a user"
                " or a password"
            )
        try:
            given = conninfo_to_dict(f"{scheme.partition('+')[0]}://{rest}")
        except psycopg.ProgrammingError as error:
            raise StoreUnusable(f"the database's URL: {first_line(error)}") from None
        if password:
            given.setdefault("password", password)
        self._given = dict(given)
        self._parameters: dict[str, Any] = {**_DEFAULTS, **given}
        self.name = _name(given)

    @property
    def machines(self) -> list[str]:
        """Names or addresses of where it may be; none for a unix socket, or what a service file names."""
        hosts = str(self._given.get("hostaddr") or self._given.get("host") or "")
        return [host for host in hosts.split(",") if host and not host.startswith(("/", "@"))]

    def url_of(self, user: str) -> str:
        """The same server and database for another user, without a password."""
        given = {name: str(value) for name, value in self._given.items() if name not in _PERSONAL}
        database, host, port = given.pop("dbname", ""), given.pop("host", ""), given.pop("port", "")
        places = ""
        if "/" in host:  # a directory of a unix socket
            given |= {"host": host, **({"port": port} if port else {})}
        else:
            places = _places(host, port)
        query = f"?{urlencode(given, quote_via=quote)}" if given else ""
        return f"postgresql://{quote(user)}@{places}/{quote(database)}{query}"

    async def connect(self, parameters: Mapping[str, str] | None = None) -> Connection:
        """A session in autocommit mode, with a server that this code can work with.

        Args:
            parameters: libpq's, over those of the URL.

        Raises:
            StoreUnreachable: no server takes a session.
            StoreUnusable: one does, and is too old or has another encoding.
        """
        try:
            connection = await AsyncConnection.connect(
                make_conninfo(**{**self._parameters, **(parameters or {})}), autocommit=True
            )
        except psycopg.Error as error:
            raise explained(error, self.name) from None
        try:
            self._check(connection)
        except StoreUnusable:
            await connection.close()
            raise
        return connection

    def connect_blocking(self) -> psycopg.Connection[Any]:
        """The same for a thread, and for SQLAlchemy, which begins its transactions itself."""
        return psycopg.connect(make_conninfo(**self._parameters))

    def _check(self, connection: Connection) -> None:
        version = connection.info.server_version // 10_000
        if version < OLDEST:
            raise StoreUnusable(
                f"{self.name}: PostgreSQL {version} is too old, upgrade the server to {OLDEST} or later"
            )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise StoreUnusable(
                f"{self.name}: the database's encoding is {encoding}; make one with"
                " `createdb --encoding UTF8 --template template0`"
            )


async def is_pooled(connection: Connection) -> bool:
    """Whether a pooler such as PgBouncer stands between: it hands out process ids of its own."""
    cursor = await connection.execute("SELECT pg_backend_pid()")
    row = await cursor.fetchone()
    return row is None or row[0] != connection.info.backend_pid


async def close(connection: Connection | None) -> None:
    """Close it, whatever state it is in."""
    if connection is not None:
        await asyncio.shield(connection.close())


def _name(given: Mapping[str, Any]) -> str:
    """As a URL; what comes from libpq's environment or from a service file is left out."""
    places = _places(str(given.get("host") or ""), str(given.get("port") or ""))
    user = f"{given['user']}@" if "user" in given else ""
    service = f"?service={given['service']}" if "service" in given else ""
    return f"postgresql://{user}{places}/{given.get('dbname', '')}{service}"


def _places(host: str, port: str) -> str:
    """Hosts and their ports, which libpq has in two lists, as they stand in a URL."""
    hosts, ports = host.split(","), port.split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    named = [f"[{each}]" if ":" in each else each for each in hosts]
    return ",".join(f"{each}:{its}" if its else each for each, its in zip(named, ports, strict=False))
