"""One SQLite file: whether it may be used, and how every connection to it is set up."""

import os
import re
import sqlite3
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from repo.errors import StoreMissing, StoreReplaced, StoreUnusable
from repo.files import open_private

Synchronous = Literal["FULL", "NORMAL", "EXTRA"]

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|glusterfs|fuse\.(sshfs|glusterfs|s3fs|rclone)"
)
_JOURNAL_LIMIT = 64 << 20


class SqliteFile:
    """The file of a store.

    Args:
        path: where it is; made with mode 0600 if missing, its directory with 0700.
        create: make it if it is missing.
        synchronous: SQLite's pragma; with FULL an acknowledged row survives power loss.
        busy_timeout: seconds that a lock of another process is waited for.
    """

    def __init__(
        self, path: Path, *, create: bool = True, synchronous: Synchronous, busy_timeout: float
    ) -> None:
        # resolved, since SQLite puts -wal and -shm beside the file that a link points to
        self.path = path.expanduser().resolve()
        self.wal = Path(f"{self.path}-wal")
        self.busy_timeout = busy_timeout
        self._create = create
        self._pragmas = (
            f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}",
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {synchronous}",
            "PRAGMA foreign_keys = ON",
            f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}",
            "PRAGMA wal_autocheckpoint = 0",  # checkpoint.py does it
        )
        self._identity: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Make the file if it is missing.

        Raises:
            StoreMissing: it is not there, and was not to be made.
            StoreUnusable: it can't be used where it is.
        """
        if not self._create and not os.path.lexists(self.path):
            raise StoreMissing(f"{self.path}: no store is there, and none was asked to be made")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.path.exists():
                os.close(open_private(self.path))
        except OSError as error:
            raise StoreUnusable(f"{self.path}: can't be made, {error.strerror}: {error.filename}") from None
        if not self.path.is_file():
            raise StoreUnusable(f"{self.path}: a {_kind(self.path)}, not a file; name a file for the store")
        if not os.access(self.path, os.R_OK | os.W_OK) or not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise StoreUnusable(
                f"{self.path}: can't be written by user {os.geteuid()}; check the owner and the mode of the"
                " file and of its directory (SQLite keeps two more files beside it)"
            )
        system = file_system(self.path)
        if _NETWORK.fullmatch(system):
            raise StoreUnusable(
                f"{self.path}: on a network file system ({system}), where locks can't be trusted;"
                " use a local disk"
            )

    def engine(self) -> Engine:
        """An engine whose connections begin with `BEGIN`, or with their execution option `begin`."""
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            poolclass=NullPool,
            connect_args={"isolation_level": None, "check_same_thread": False},
        )
        event.listen(engine, "connect", self._set_up)
        event.listen(engine, "begin", _begin)
        return engine

    def remember(self) -> None:
        """Note which file this path leads to, for `check_same`."""
        facts = self.path.stat()
        self._identity = facts.st_dev, facts.st_ino

    def check_same(self) -> None:
        """Raises:
        StoreReplaced: the path leads to another file, or nowhere, since `remember`.
        """
        try:
            facts = os.stat(self.path)  # noqa: PTH116 - called for every commit, and Path.stat is slower
        except OSError:
            facts = None
        if facts is None or (facts.st_dev, facts.st_ino) != self._identity:
            what = "was deleted" if facts is None else "was replaced by another file"
            raise StoreReplaced(f"{self.path}: {what} while it was open; restart to use what is there now")

    def _set_up(self, connection: sqlite3.Connection, _: object) -> None:
        for pragma in self._pragmas:
            connection.execute(pragma).close()


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds `path`, such as `ext4` or `nfs4`; "" if it can't be known."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    found, system = Path(), ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if path.is_relative_to(mounted) and len(mounted.parts) >= len(found.parts):
            found, system = mounted, after.split()[0]
    return system


def _begin(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101
    driver.execute(connection.get_execution_options().get("begin", "BEGIN")).close()


def _kind(path: Path) -> str:
    return "directory" if path.is_dir() else "device, pipe or socket"
