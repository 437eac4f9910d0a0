"""Liveness is a lock: one file per decky, held with flock(2) by whoever works on that decky.

The descriptor is passed on to the operation's child, so the kernel frees the lock exactly when the last
process that could still touch the decky is gone. A lock file is created once and never deleted: deleting
one that somebody waits for would split the lock in two.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Self

import msgspec

from repo.lifecycle import DECKY_NAME
from worker.liveness.directories import Access, belong_to, check_host, prepare
from worker.liveness.errors import LocksUnusable
from worker.liveness.holders import UNSEEN, Hold, holds_of, may_hold, same_file
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.owner import Owner, exists
from worker.settings import WorkerSettings

_CLOSED = -1
_HOLDER_BYTES = 512
_SUFFIX = ".lock"
_DELETED = " (deleted)"


class Holder(msgspec.Struct, frozen=True):
    """What the holder wrote into the lock file, for the reaper and for people.

    Attributes:
        lifecycle_id: the row that it works on.
        owner: the worker.
        deadline: when the operation should have ended, in seconds of CLOCK_MONOTONIC.
    """

    lifecycle_id: str
    owner: str
    deadline: float


_holder_decoder = msgspec.json.Decoder(Holder)


class DeckyLock:
    """One decky's lock, held. Released it stays with the children that inherited the descriptor.

    Attributes:
        fd: the descriptor, to be inherited.
        deadline: the last one that was written; 0 if none was.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.deadline = 0.0

    def __enter__(self) -> "DeckyLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it up."""
        # Closed and not LOCK_UN: unlocking would free it under a surviving child too, see flock(2).
        os.close(self.fd)

    def write(self, holder: Holder) -> None:
        """Say who holds it and until when."""
        # Filled up with blanks, so that it is all there or not, and covers what was there before.
        os.pwrite(self.fd, msgspec.json.encode(holder).ljust(_HOLDER_BYTES), 0)
        self.deadline = holder.deadline

    def read(self) -> Holder | None:
        """What was written into it last, by whomever; None if nothing readable is there."""
        return _read(self.fd)

    def survivors(self) -> list[Hold]:
        """Other processes that hold this very lock through an inherited descriptor."""
        return [hold for hold in holds_of(same_file(self.fd)) if hold.pid != os.getpid()]


class LockFile:
    """A decky's lock file, open, so that it can be tried again and again. Open it holds nothing.

    Closed when it is forgotten, at the latest.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def try_lock(self) -> DeckyLock | None:
        """Take the lock if it is free, which closes this; None if somebody holds it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        lock, self._fd = DeckyLock(self._fd), _CLOSED
        return lock

    def read(self) -> Holder | None:
        """What the holder wrote; None if nothing readable is there."""
        return _read(self._fd)

    def close(self) -> None:
        """Close it; harmless when it is closed."""
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            os.close(fd)

    __del__ = close


class DeckyLocks:
    """The locks of the deckies of one host.

    Args:
        directory: where their files are.
    """

    def __init__(self, directory: LockDirectory) -> None:
        self.directory = directory
        self._holds: dict[str, list[Hold]] = {}
        self._looked_at = -1.0

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """Those that belong to the settings' store.

        Raises:
            LocksUnusable: their directory can't be made, used or trusted, or belongs to another host.
        """
        directory = LockDirectory.of(settings)
        check_host(directory.path, settings.host_uuid)
        return cls(directory)

    @classmethod
    def for_daemon(cls, settings: WorkerSettings) -> Self:
        """As `of`; the lock and the state directory belong to the settings' host from now on.

        Raises:
            LocksUnusable: also for the directories of state and of sockets.
        """
        access = Access.to(settings)
        for directory in (settings.state_dir, settings.runtime_dir):
            prepare(directory, access)
        locks = LockDirectory.of(settings)
        for directory in (settings.state_dir, locks.path):
            belong_to(directory, settings.host_uuid, access)
        return cls(locks)

    def path(self, decky_name: str, host_uuid: str | None) -> Path:
        """The lock file of a decky. Names that are no names (foreign rows) are hashed."""
        return self.directory.path / _file_name(decky_name, host_uuid)

    def open(self, decky_name: str, host_uuid: str | None) -> LockFile:
        """A decky's lock file; made if it is missing.

        Raises:
            LocksUnusable: it can't be opened.
        """
        try:
            return LockFile(self.directory.open(_file_name(decky_name, host_uuid)))
        except OSError as error:
            path = self.path(decky_name, host_uuid)
            raise LocksUnusable(f"the lock file {path} can't be opened: {error.strerror}") from None

    def try_lock(self, decky_name: str, host_uuid: str | None) -> DeckyLock | None:
        """Take a decky's lock if it is free; None if somebody holds it.

        Raises:
            LocksUnusable: the file can't be opened.
        """
        return self.try_lock_or_read(decky_name, host_uuid)[0]

    def try_lock_or_read(
        self, decky_name: str, host_uuid: str | None
    ) -> tuple[DeckyLock | None, Holder | None]:
        """Take a decky's lock if it is free; else what its holder wrote, None if nothing readable is there.

        Raises:
            LocksUnusable: the file can't be opened.
        """
        with contextlib.closing(self.open(decky_name, host_uuid)) as file:
            lock = file.try_lock()
            return lock, None if lock else file.read()

    def holders(self, decky_name: str, host_uuid: str | None) -> list[Hold]:
        """Who holds this decky's lock now, as the kernel tells."""
        try:
            file = self.path(decky_name, host_uuid).stat()
        except FileNotFoundError:
            return []
        return holds_of(lambda entry: os.path.samestat(entry.stat(), file))

    def may_hold_another(self, owner: Owner, decky_name: str, host_uuid: str | None, lock: DeckyLock) -> bool:
        """Whether an owner holds this decky's lock by another file than the one that we have locked.

        That is one that has been deleted, or is in another directory; True if it can't be known.
        """
        name, ours = _file_name(decky_name, host_uuid), os.fstat(lock.fd)

        def another(entry: os.DirEntry[str]) -> bool:
            return _locked_name(os.readlink(entry.path)) == name and not os.path.samestat(entry.stat(), ours)  # noqa: PTH115

        return may_hold(owner.pid, another)

    def survivors(
        self, decky_name: str, host_uuid: str | None, owner: Owner, *, max_age: float = 0.0
    ) -> list[Hold]:
        """Processes that hold this decky's lock because `owner`, now dead, passed it on to them.

        Also those that hold it by a file that has been deleted, or in another directory. Whoever took the
        lock itself is never among them: another worker on its way to a claim that will be refused, or
        another reaper that looks at the same row.

        Args:
            decky_name, host_uuid: the decky.
            owner: who took it.
            max_age: how many seconds old the answer may be. A look at all processes takes milliseconds, and
                is made for all deckies at once.
        """
        if time.monotonic() - self._looked_at > max_age:
            self._holds = {}
            for hold in holds_of(lambda entry: _locked_name(os.readlink(entry.path)).endswith(_SUFFIX)):  # noqa: PTH115
                self._holds.setdefault(_locked_name(hold.file), []).append(hold)
            self._looked_at = time.monotonic()
        path = str(self.path(decky_name, host_uuid))
        # Elsewhere the taker alone tells, as long as no other process has come to its pid.
        elsewhere = not exists(owner.pid)

        def passed_on(hold: Hold) -> bool:
            here = hold.file.removesuffix(_DELETED) == path and hold.taker in {owner.pid, UNSEEN}
            return hold.pid != hold.taker and (here or (elsewhere and hold.taker == owner.pid))

        return [hold for hold in self._holds.get(_file_name(decky_name, host_uuid), []) if passed_on(hold)]


@lru_cache(4096)  # a sweep asks for every open row
def _file_name(decky_name: str, host_uuid: str | None) -> str:
    parts = (decky_name,) if host_uuid is None else (decky_name, host_uuid)
    if all(map(DECKY_NAME.fullmatch, parts)):
        return "@".join(parts) + _SUFFIX
    return f"#{hashlib.sha256(repr(parts).encode()).hexdigest()}{_SUFFIX}"


def _locked_name(path: str) -> str:
    return path.removesuffix(_DELETED).rpartition("/")[2]


def _read(fd: int) -> Holder | None:
    try:
        return _holder_decoder.decode(os.pread(fd, _HOLDER_BYTES, 0))
    except (OSError, msgspec.MsgspecError):
        return None
