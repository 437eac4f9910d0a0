"""Liveness is a lock: one file per decky, held with flock(2) by whoever works on that decky.

The descriptor is passed on to the operation's child, so the kernel frees the lock exactly when the last
process that could still touch the decky is gone. A lock file is created once and never deleted: deleting
one that somebody waits for would split the lock in two.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import time
from collections.abc import Container, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from repo.errors import DecnetReaperError
from repo.files import open_private

# As in /proc/locks: number, kind, mode, access, pid of the taker, device and inode, range.
_LOCK = re.compile(r"^lock:\s+\d+: FLOCK\s+\S+\s+\S+\s+(\d+) ", re.MULTILINE)
_UNSEEN = 0
_CLOSED = -1
_HOLDER_BYTES = 512
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class LocksUnusable(DecnetReaperError):
    """The lock directory can't be used; says why and what to do."""

    exit_status = 3


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


class Hold(NamedTuple):
    """One process that holds a lock.

    Attributes:
        pid: the process.
        taker: the process that took the lock; 0 if it is dead and of another pid namespace.
    """

    pid: int
    taker: int


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

    def survivors(self) -> list[int]:
        """Other processes that hold this very lock through an inherited descriptor."""
        file = os.fstat(self.fd)
        holds = _holds(file.st_dev, {file.st_ino}).get(file.st_ino, [])
        return [hold.pid for hold in holds if hold.pid != os.getpid()]


class LockFile:
    """A decky's lock file, open, so that it can be tried again and again. Open it holds nothing.

    Closed when it is forgotten, at the latest.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = open_private(path)
        except OSError as error:
            self._fd = _CLOSED
            raise LocksUnusable(f"the lock file {path} can't be opened: {error.strerror}") from None

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
        try:
            return _holder_decoder.decode(os.pread(self._fd, _HOLDER_BYTES, 0))
        except (OSError, msgspec.MsgspecError):
            return None

    def close(self) -> None:
        """Close it; harmless when it is closed."""
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            os.close(fd)

    __del__ = close


class DeckyLocks:
    """The lock directory of one host.

    Args:
        runtime_dir: created with mode 0700 if missing; must be on a local file system.

    Raises:
        LocksUnusable: it can't be created or written.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self.directory = runtime_dir / "locks"
        self._holds: dict[int, list[Hold]] = {}
        self._looked_at = 0.0
        try:
            runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocksUnusable(
                f"the runtime directory {runtime_dir} can't be used: {error.strerror};"
                " set DECNET_REAPER_RUNTIME_DIR to one that this user may write"
            ) from None
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise LocksUnusable(f"the lock directory {self.directory} is not writable for this user")
        if os.geteuid() not in {0, self.directory.stat().st_uid}:
            raise LocksUnusable(f"the lock directory {self.directory} belongs to somebody else")

    def path(self, decky_name: str, host_uuid: str | None) -> Path:
        """The lock file of a decky. Names that are no names (foreign rows) are hashed."""
        return _path(self.directory, decky_name, host_uuid)

    def open(self, decky_name: str, host_uuid: str | None) -> LockFile:
        """A decky's lock file; made if it is missing.

        Raises:
            LocksUnusable: it can't be opened.
        """
        return LockFile(self.path(decky_name, host_uuid))

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

    def holders(self, decky_name: str, host_uuid: str | None, *, max_age: float = 0.0) -> list[Hold]:
        """Who holds this decky's lock now, as the kernel tells.

        An inherited descriptor shares its taker's open file description, and proc_pid_fdinfo(5) lists the
        lock there; a process that merely opened the same file has no such line. So this names exactly those
        who could still touch the decky, whatever session or parent they have.

        Args:
            decky_name, host_uuid: the decky.
            max_age: how many seconds old the answer may be. A look at all processes takes milliseconds, and
                is made for all deckies at once.
        """
        try:
            file = self.path(decky_name, host_uuid).stat()
        except FileNotFoundError:
            return []
        if time.monotonic() - self._looked_at >= max_age:
            with os.scandir(self.directory) as locks:
                self._holds = _holds(file.st_dev, {lock.inode() for lock in locks})
            self._looked_at = time.monotonic()
        return self._holds.get(file.st_ino, [])

    def survivors(
        self, decky_name: str, host_uuid: str | None, owner_pid: int, *, max_age: float = 0.0
    ) -> list[int]:
        """Processes that hold this decky's lock because `owner_pid`, now dead, passed it on to them.

        Whoever took the lock itself is never among them: another worker on its way to a claim that will be
        refused, or another reaper that judges the same row.

        Args:
            decky_name, host_uuid: the decky.
            owner_pid: who took it.
            max_age: as for `holders`.
        """
        return [
            hold.pid
            for hold in self.holders(decky_name, host_uuid, max_age=max_age)
            if hold.taker in {owner_pid, _UNSEEN} and hold.pid != hold.taker
        ]


@lru_cache(4096)  # a pass of the reaper asks for every open row
def _path(directory: Path, decky_name: str, host_uuid: str | None) -> Path:
    name = decky_name if host_uuid is None else f"{decky_name}@{host_uuid}"
    if not all(_PLAIN.fullmatch(part) for part in name.split("@")):
        name = "#" + hashlib.sha256(name.encode()).hexdigest()
    return directory / f"{name}.lock"


def _holds(device: int, inodes: Container[int]) -> dict[int, list[Hold]]:
    """Which processes hold locks on these files, by inode."""
    found: dict[int, list[Hold]] = {}
    with os.scandir("/proc") as processes:
        pids = [int(process.name) for process in processes if process.name.isdecimal()]
    for pid in pids:
        for inode, taker in _taken(pid, device, inodes):
            found.setdefault(inode, []).append(Hold(pid, taker))
    return found


def _taken(pid: int, device: int, inodes: Container[int]) -> Iterator[tuple[int, int]]:
    """The inode of each of these files that a process holds a lock on, and the pid that took the lock."""
    # A process may end, or belong to somebody else, at any step of this.
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            with contextlib.suppress(FileNotFoundError):
                file = descriptor.stat()
                if file.st_dev == device and file.st_ino in inodes:
                    told = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
                    if (lock := _LOCK.search(told)) is not None:
                        yield file.st_ino, int(lock[1])


def end_holder(locks: DeckyLocks, decky_name: str, host_uuid: str | None, pid: int) -> bool:
    """Kill one process that holds a decky's lock, never another one that has come to its pid.

    The pidfd is opened first, then the process is looked at again, so that what was looked at is what is
    signalled (pidfd_open(2)).

    Returns:
        Whether it held the lock and was signalled.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        file = locks.path(decky_name, host_uuid).stat()
        if not any(_taken(pid, file.st_dev, {file.st_ino})):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return False
    else:
        return True
    finally:
        os.close(descriptor)
