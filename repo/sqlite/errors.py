"""What SQLite's errors mean to a person: one place that turns them into the store's own."""

import os
import sqlite3
from pathlib import Path

from repo.errors import StoreBusy, StoreError, StoreFull, StoreUnusable

_LEAST_FREE = 1 << 20
"""With less than this many bytes free, an I/O error is taken for a full disk: SQLite says either."""


def code_of(error: Exception) -> int:
    """SQLite's primary result code; 0 if this is no error of SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_refusal(error: Exception) -> bool:
    """Whether a constraint or a guard refused a write, so that only this write has failed."""
    return code_of(error) == sqlite3.SQLITE_CONSTRAINT


def explained(error: Exception, path: Path, waited: float) -> StoreError:
    """The store's own error for one that SQLite raised.

    Args:
        error: as sqlite3 raised it.
        path: of the store.
        waited: seconds that a lock was waited for.
    """
    match code_of(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(
                f"{path}: another process has held its write lock for {waited:g} s;"
                f" see who with `fuser -v {path}`, then try again"
            )
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_IOERR if _free(path) < _LEAST_FREE:
            return _full(path)
        case sqlite3.SQLITE_READONLY:
            return StoreUnusable(f"{path}: can't be written; check its owner, its mode and its file system")
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnusable(f"{path}: can't be opened; check that its directory is there and writable")
        case sqlite3.SQLITE_NOTADB:
            return StoreUnusable(f"{path}: not an SQLite database; name another file, or move this one away")
        case sqlite3.SQLITE_CORRUPT:
            return StoreUnusable(
                f"{path}: damaged ({error}); stop everything that uses it, then restore a copy"
                " or salvage it with `sqlite3 ... .recover`"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnusable(f"{path}: the disk answered with an error ({error}); see the kernel's log")
        case _:
            return StoreUnusable(f"{path}: SQLite refused ({error})")


def _full(path: Path) -> StoreFull:
    return StoreFull(f"{path}: no space is left in {path.parent}; free some, nothing needs a restart")


def _free(path: Path) -> int:
    try:
        facts = os.statvfs(path.parent)
    except OSError:
        return _LEAST_FREE
    return facts.f_bavail * facts.f_frsize
