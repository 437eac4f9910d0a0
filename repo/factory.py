"""Where a repository comes from.

What PostgreSQL needs is imported where a store turns out to be one: psycopg is an extra, and takes 0.1 s.
"""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from repo.base import BaseRepository
from repo.engine import Engine
from repo.errors import StoreUnusable
from repo.repository import SqlRepository
from repo.settings import StoreSettings
from repo.sqlite.connection import SqliteFile, Synchronous
from repo.sqlite.engine import SqliteEngine

if TYPE_CHECKING:
    from repo.postgres.observer import Observer
    from repo.postgres.presence import Presence
    from repo.postgres.server import Server

_SERVERS = ("postgresql://", "postgres://", "postgresql+psycopg://")


def get_repository(
    db_path: str | PathLike[str] | None = None,
    *,
    url: str | None = None,
    password: str | None = None,
    create: bool = True,
    synchronous: Synchronous = "FULL",
    busy_timeout: float = 30.0,
) -> BaseRepository:
    """A repository, not yet open: `await repository.initialize()`, or use it with `async with`.

    Args:
        db_path: the file of an SQLite store.
        url: instead of it, `sqlite:///relative`, `sqlite:////absolute`, a path, or `postgresql://...` with
            libpq's own parameters.
        password: of the PostgreSQL user, where neither the URL nor libpq's own ways give one.
        create: make the store if it is not there.
        synchronous: SQLite's pragma; with FULL, an acknowledged row survives power loss.
        busy_timeout: seconds that a lock of another process is waited for; or a PostgreSQL server, after
            it was there.

    Raises:
        StoreUnusable: no such database is supported.
    """
    if (db_path is None) == (url is None):
        raise TypeError("get_repository() takes either db_path or url")
    where = Path(str(db_path)) if url is None else url
    return SqlRepository(get_engine(where, password, create, synchronous, busy_timeout))


def repository_of(settings: StoreSettings, create: bool | None = None) -> BaseRepository:
    """The repository that the settings name, not yet open.

    Args:
        settings: of any package.
        create: make the store if it is not there; None: as the settings say.

    Raises:
        StoreUnusable: no such database is supported.
    """
    create = settings.makes_store if create is None else create
    return get_repository(url=settings.database, password=settings.database_password, create=create)


def get_engine(
    url: str | Path,
    password: str | None = None,
    create: bool = True,
    synchronous: Synchronous = "FULL",
    busy_timeout: float = 30.0,
) -> Engine:
    """The database behind a repository, not yet open; arguments as for `get_repository`, a path as a `Path`.

    Raises:
        StoreUnusable: no such database is supported.
    """
    if isinstance(url, str) and is_server(url):
        server = server_at(url, password)  # first, for what it says where psycopg is missing
        from repo.postgres.engine import PostgresEngine

        return PostgresEngine(server, patience=busy_timeout, create=create)
    path = url if isinstance(url, Path) else _path_of(url)
    return SqliteEngine(SqliteFile(path, create=create, synchronous=synchronous, busy_timeout=busy_timeout))


def presence_of(settings: StoreSettings, host_uuid: str | None, daemon: str) -> "Presence | None":
    """The session that says that this host is there, not yet open; None where the store is a file.

    Args:
        settings: of any package.
        host_uuid: this host; None is the master's own.
        daemon: what `hosts` shows of whose session it is.
    """
    if not is_server(settings.database):
        return None
    server = server_of(settings, settings.presence_database)
    from repo.postgres.presence import Presence

    return Presence(server, host_uuid, daemon)


def observer_of(settings: StoreSettings, lost_after: float, longest_gap: float) -> "Observer | None":
    """Who counts for how long each host has been absent, not yet open; None where the store is a file.

    Args:
        settings: of any package.
        lost_after, longest_gap: as `Observer` takes them.
    """
    if not is_server(settings.database):
        return None
    server = server_of(settings, settings.presence_database)
    from repo.postgres.observer import Observer

    return Observer(server, lost_after, longest_gap=longest_gap)


def server_of(settings: StoreSettings, url: str = "") -> "Server":
    """The PostgreSQL server that the settings name, or that `url` does.

    Raises:
        StoreUnusable: the store is a file, or its URL can't be read.
    """
    url = url or settings.database
    if not is_server(url):
        raise StoreUnusable(
            f"{settings.database_name}: a file is the store of one host; several need PostgreSQL"
        )
    return server_at(url, settings.database_password)


def is_server(url: str) -> bool:
    """Whether this store is a PostgreSQL server."""
    return url.startswith(_SERVERS)


def server_at(url: str, password: str | None = None) -> "Server":
    """The PostgreSQL server of a URL.

    Raises:
        StoreUnusable: the URL can't be read, or psycopg is not installed.
    """
    try:
        from repo.postgres.server import Server
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "psycopg":
            raise
        raise StoreUnusable(
            "postgresql://...: psycopg is not installed; type: pip install 'decnet-reaper[postgresql]'"
        ) from None
    return Server(url, password)


def _path_of(url: str) -> Path:
    scheme, found, rest = url.partition("://")
    if found and scheme.partition("+")[0] != "sqlite":
        raise StoreUnusable(
            f"{scheme}://...: no such store; name sqlite:///PATH or postgresql://HOST/DATABASE"
        )
    if found and not rest.startswith("/"):
        raise StoreUnusable(f"{url}: no host can be named; write sqlite:///relative or sqlite:////absolute")
    path = rest[1:].partition("?")[0] if found else url
    if path in ("", ":memory:"):
        raise StoreUnusable(f"{url}: a store that several processes share needs a file")
    return Path(path)
