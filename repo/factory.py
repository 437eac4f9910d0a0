"""Where a repository comes from."""

from os import PathLike
from pathlib import Path

from repo.base import BaseRepository
from repo.engine import Engine
from repo.errors import StoreUnusable
from repo.repository import SqlRepository
from repo.settings import StoreSettings
from repo.sqlite.connection import SqliteFile, Synchronous
from repo.sqlite.engine import SqliteEngine


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
    if url is not None:
        return SqlRepository(get_engine(url, password, create, synchronous, busy_timeout))
    file = SqliteFile(Path(str(db_path)), create=create, synchronous=synchronous, busy_timeout=busy_timeout)
    return SqlRepository(SqliteEngine(file))


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
    url: str,
    password: str | None = None,
    create: bool = True,
    synchronous: Synchronous = "FULL",
    busy_timeout: float = 30.0,
) -> Engine:
    """The database behind a repository, not yet open; arguments as for `get_repository`.

    Raises:
        StoreUnusable: no such database is supported.
    """
    if url.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
        return _postgres(url, password, create=create, patience=busy_timeout)
    file = SqliteFile(_path_of(url), create=create, synchronous=synchronous, busy_timeout=busy_timeout)
    return SqliteEngine(file)


def _postgres(url: str, password: str | None, *, create: bool, patience: float) -> Engine:
    try:  # here, since psycopg is an extra, and takes 0.1 s
        from repo.postgres.engine import PostgresEngine
        from repo.postgres.server import Server
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "psycopg":
            raise
        raise StoreUnusable(
            "postgresql://...: psycopg is not installed; type: pip install 'decnet-reaper[postgresql]'"
        ) from None
    return PostgresEngine(Server(url, password), patience=patience, create=create)


def _path_of(url: str) -> Path:
    scheme, found, rest = url.partition("://")
    if not found:
        return _named(url, url)
    if scheme.partition("+")[0] != "sqlite":
        raise StoreUnusable(
            f"{scheme}://...: no such store; name sqlite:///PATH or postgresql://HOST/DATABASE"
        )
    if not rest.startswith("/"):
        raise StoreUnusable(f"{url}: no host can be named; write sqlite:///relative or sqlite:////absolute")
    return _named(rest[1:].partition("?")[0], url)


def _named(path: str, given: str) -> Path:
    if path in ("", ":memory:"):
        raise StoreUnusable(f"{given}: a store that several processes share needs a file")
    return Path(path)
