"""One SQLite file: whether it may be used, and how every connection to it is set up."""

import os
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Literal

from repo.errors import StoreMissing, StoreReplaced, StoreUnusable
from repo.sqlite.files import make_directory, open_private, share, who_may_use
from repo.sqlite.location import resolved

Synchronous = Literal["FULL", "NORMAL"]

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|glusterfs|fuse\.(sshfs|glusterfs|s3fs|rclone)"
)
_JOURNAL_LIMIT = 64 << 20


class SqliteFile:
    """The file of a store.

    Args:
        path: where it is; made with mode 0600 if missing, its directory with 0700.
        create: make it if it is missing.
        synchronous: as SQLite's pragma; with FULL an acknowledged row survives power loss.
        busy_timeout: seconds that a lock of another process is waited for.
    """

    def __init__(
        self, path: Path, *, create: bool = True, synchronous: Synchronous, busy_timeout: float
    ) -> None:
        self.path = resolved(path)
        self.wal = Path(f"{self.path}-wal")
        self.busy_timeout = busy_timeout
        self._create = create
        self.durable = synchronous == "FULL"
        self.failed: OSError | None = None
        self._log: int | None = None
        self._pragmas = (
            f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}",
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {synchronous}",
            "PRAGMA foreign_keys = ON",
            f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}",
            "PRAGMA wal_autocheckpoint = 0",  # checkpoint.py does it
        )
        self._shm = Path(f"{self.path}-shm")
        self._identities: list[tuple[str, tuple[int, int] | None]] = []

    def prepare(self) -> None:
        """Make the file if it is missing.

        Raises:
            StoreMissing: it is not there, and was not to be made.
            StoreUnusable: it can't be used where it is.
        """
        directory = self.path.parent
        if os.path.isdir(directory) and not os.access(directory, os.W_OK | os.X_OK):  # noqa: PTH112 - never raises
            if os.statvfs(directory).f_flag & os.ST_RDONLY:
                raise StoreUnusable(
                    f"{self.path}: on a read-only file system; mount it writable (under systemd:"
                    f" ReadWritePaths={directory})"
                )
            raise StoreUnusable(f"{self.path}: {who_may_use(directory)}")
        if not self._create and not os.path.lexists(self.path):
            raise StoreMissing(
                f"{self.path}: no store is there; if nobody else is to make it (DECNET makes its own), type:"
                " decnet-reaper doctor --create"
            )
        try:
            make_directory(directory)
            if not self.path.exists():
                os.close(open_private(self.path))
        except OSError as error:
            raise StoreUnusable(f"{self.path}: can't be made, {error.strerror}: {error.filename}") from None
        if not self.path.is_file():
            raise StoreUnusable(f"{self.path}: a {_kind(self.path)}, not a file; name a file for the store")
        for file in (self.path, self.wal, Path(f"{self.path}-shm")):
            if file.exists() and not os.access(file, os.R_OK | os.W_OK):
                raise StoreUnusable(
                    f"{file}: can't be written by user {os.geteuid()}; check its owner and mode (a store that"
                    " several users share lies in a directory of their group, with mode 2770)"
                )
        system = file_system(self.path)
        if _NETWORK.fullmatch(system):
            raise StoreUnusable(
                f"{self.path}: on a network file system ({system}), where locks can't be trusted;"
                " use a local disk"
            )

    def connect(self) -> sqlite3.Connection:
        """A connection, set up; transactions are begun and ended by statements only."""
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in self._pragmas:
                connection.execute(pragma).close()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def remember(self) -> None:
        """Note which files are open, for `check_same`; give SQLite's the database's mode and group."""
        for path in (self.wal, self._shm):
            share(path, self.path)
        # SQLite locks the database and -shm, never -wal: a descriptor of our own disturbs nothing
        self._log = os.open(self.wal, os.O_RDONLY | os.O_CLOEXEC)
        self._identities = [(str(path), _identity(str(path))) for path in (self.path, self.wal, self._shm)]

    def forget(self) -> None:
        """Let go of the log."""
        log, self._log = self._log, None
        if log is not None:
            os.close(log)

    def sync(self) -> None:
        """Return when all that any process committed is on the disk, as after its commit with FULL.

        Raises:
            OSError: it can't be, and what is on the disk is not known. Linux says so once and then forgets
                (https://wiki.postgresql.org/wiki/Fsync_Errors), so it is kept as `failed`.
        """
        if self.failed is not None:
            raise self.failed
        try:
            if self.durable and self._log is not None:
                os.fdatasync(self._log)
        except OSError as error:
            self.failed = error
            raise

    def read_log(self, offset: int, length: int) -> bytes:
        """Bytes of the write-ahead log; none where the disk fails, which whoever writes finds out."""
        with suppress(OSError):
            return b"" if self._log is None else os.pread(self._log, length, offset)
        return b""

    def check_same(self) -> None:
        """Raises:
        StoreReplaced: the path of a file that is open leads to another one, or nowhere, since `remember`.
        """
        for path, identity in self._identities:
            if (found := _identity(path)) != identity:
                what = "was deleted" if found is None else "was replaced by another file"
                raise StoreReplaced(f"{path}: {what} while it was open; restart to use what is there now")


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


def _identity(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - called for every commit, and Path.stat is slower
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _kind(path: Path) -> str:
    return "directory" if path.is_dir() else "device, pipe or socket"
