"""Where the file of an SQLite store is, known without opening it."""

from pathlib import Path

from repo.errors import StoreUnusable


def sqlite_path(database: str) -> Path | None:
    """The resolved path of an SQLite store's file; None for a store that a server keeps.

    Args:
        database: the setting: a path, or a URL such as `sqlite:////absolute/path`.

    Raises:
        StoreUnusable: as `resolved` does.
    """
    scheme, found, rest = database.partition("://")
    if found and scheme.partition("+")[0] != "sqlite":
        return None
    return resolved(Path(rest.removeprefix("/").partition("?")[0] if found else database))


def resolved(path: Path) -> Path:
    """Where a store's file really is: SQLite puts -wal and -shm beside what a link points to.

    Raises:
        StoreUnusable: it is in the home directory of nobody.
    """
    try:
        home = path.expanduser()
    except RuntimeError:
        raise StoreUnusable(
            f"the store {path}: there is no such home directory; write the path without ~"
        ) from None
    return home.resolve()
