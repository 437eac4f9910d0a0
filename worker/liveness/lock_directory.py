"""The directory of a store's decky locks: where it is, whose it is, and whether it still is the same one.

It follows the store: whoever opens an SQLite store, from whichever session and as whichever user, finds
`<database>-locks` beside it; a store that a server keeps has its locks in the state directory. A lock says
something only about rows that were claimed under it, so the directory has an id, which lasts for one boot,
and which each owner names. One lock directory belongs to one host.
"""

import contextlib
import fcntl
import os
import secrets
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, Self

from repo.settings import StoreSettings
from repo.sqlite.location import sqlite_path
from worker.liveness.directories import Access, alone_in, check_directory, read_line, replace_line
from worker.liveness.errors import LocksReplaced, LocksUnusable
from worker.liveness.holders import holds_of, same_file
from worker.liveness.owner import boot_id

Daemon = Literal["up", "worker", "reaper"]

_ID: Final = "id"


def find_lock_directory(settings: StoreSettings) -> Path:
    """Where the locks of these settings' store are."""
    file = sqlite_path(settings.database)
    return Path(f"{file}-locks") if file else settings.state_dir.resolve() / "locks"


class LockDirectory:
    """A lock directory, open.

    Args:
        path: where it is; made if it is missing, with the access that the store has.
        access: who may use the store (default: this user alone).

    Attributes:
        path: where it is.
        id: names it for as long as this boot lasts.

    Raises:
        LocksUnusable: it can't be made, used or trusted.
    """

    def __init__(self, path: Path, access: Access | None = None) -> None:
        self.path = path
        self._identity_paths = str(path), str(path / _ID)  # text, since it is done at each claim
        self._access = access or Access(os.geteuid(), os.getegid(), 0o600)
        try:
            self._access.make(path)
            check_directory(path, self._access)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)
            if not os.access(path, os.W_OK | os.X_OK):
                raise LocksUnusable(f"the lock directory {path} is not writable for this user")
            self.id = self._identify()
            self._opened = self._look()
        except OSError as error:
            raise LocksUnusable(
                f"the lock directory {path} can't be used: {error.strerror}; it lies beside the store, and"
                " must be writable for all who use that"
            ) from None

    @classmethod
    def of(cls, settings: StoreSettings) -> Self:
        """That of the settings' store."""
        return cls(find_lock_directory(settings), Access.to(settings))

    def open(self, name: str) -> int:
        """Open one of its files, made if it is missing; a descriptor.

        Raises:
            OSError: as open(2).
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(name, flags, dir_fd=self._fd)
        except FileNotFoundError:
            fd = os.open(name, flags | os.O_CREAT, 0o600, dir_fd=self._fd)
        self._access.give(fd, self._access.mode)
        return fd

    def check_same(self) -> None:
        """Raises:
        LocksReplaced: the path leads to another directory, or nowhere, since it was opened.
        """
        if self._look() != self._opened:
            raise LocksReplaced(
                f"the lock directory {self.path} was replaced or removed while it was in use; never touch it:"
                " restart to use what is there now"
            )

    @contextlib.contextmanager
    def joined(self, daemon: Daemon) -> Iterator[None]:
        """While this lasts the kernel knows that such a daemon runs here; only one `up` may.

        Raises:
            LocksUnusable: there is an `up` already.
        """
        fd = self.open(_name_of(daemon))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if daemon == "up" else fcntl.LOCK_SH)
            yield
        except BlockingIOError:
            raise LocksUnusable(f"decnet-reaper is already up on this store (locks in {self.path})") from None
        finally:
            os.close(fd)

    def runs(self, daemon: Daemon) -> bool:
        """Whether such a daemon runs here."""
        fd = self.open(_name_of(daemon))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def pids(self, daemon: Daemon) -> list[int]:
        """The processes that do, as far as this user can see them."""
        fd = self.open(_name_of(daemon))
        try:
            return [hold.pid for hold in holds_of(same_file(fd))]
        finally:
            os.close(fd)

    def folder(self, name: str) -> Path:
        """A directory in it, made if it is missing.

        Raises:
            OSError: as mkdir(2).
        """
        path = self.path / name
        self._access.make(path)
        return path

    def _identify(self) -> str:
        # A copy of a directory, and one that a reboot has freed of its locks, is another one.
        place = [boot_id(), str(os.fstat(self._fd).st_ino)]
        with alone_in(self.path):
            named = (read_line(self.path / _ID) or "").split()
            if named[1:] == place:
                return named[0]
            fresh = secrets.token_hex(8)
            replace_line(self.path / _ID, " ".join([fresh, *place]), self._access)
            return fresh

    def _look(self) -> tuple[int, ...]:
        try:
            directory, identity = map(os.stat, self._identity_paths)
        except OSError:
            return ()
        return directory.st_dev, directory.st_ino, identity.st_ino, identity.st_mtime_ns


def _name_of(daemon: Daemon) -> str:
    return f"_{daemon}.lock"  # no decky's name begins like this
