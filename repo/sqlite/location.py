"""Where the file of an SQLite store is, known without opening it."""

from pathlib import Path


def sqlite_path(database: str) -> Path | None:
    """The resolved path of an SQLite store's file; None for a store that a server keeps.

    Args:
        database: the setting: a path, or a URL such as `sqlite:////absolute/path`.
    """
    scheme, found, rest = database.partition("://")
    if found and scheme.partition("+")[0] != "sqlite":
        return None
    path = rest.removeprefix("/").partition("?")[0] if found else database
    # As SQLite does, which puts -wal and -shm beside the file that a link points to.
    return Path(path).expanduser().resolve()
