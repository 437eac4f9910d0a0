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
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from repo.private_file import open_private

# As in /proc/locks: number, kind, mode, access, pid of the taker, device and inode, range.
_LOCK = re.compile(r"^lock:\s+\d+: FLOCK\s+\S+\s+\S+\s+(\d+) ", re.MULTILINE)
_UNSEEN = 0
_HOLDER_BYTES = 512
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class LocksUnusable(Exception):
    """The lock directory can't be used; says why and what to do."""


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


class Hold(NamedTuple):
    """One process that holds a lock.

    Attributes:
        pid: the process.
        taker: the process that took the lock; 0 if it is dead and of another pid namespace.
    """

    pid: int
    taker: int


class DeckyLock:
    """One decky's lock, held. Closing gives it up, but for children that inherited the descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> "DeckyLock":
        return self

    def __exit__(self, *_: object) -> None:
        # Closed and not LOCK_UN: unlocking would free it under a surviving child too, see flock(2).
        os.close(self.fd)

    def write(self, holder: Holder) -> None:
        """Say who holds it and until when."""
        # Filled up with blanks, so that it is all there or not, and covers what was there before.
        os.pwrite(self.fd, msgspec.json.encode(holder).ljust(_HOLDER_BYTES), 0)

    def survivors(self) -> list[int]:
        """Other processes that hold this very lock through an inherited descriptor."""
        return [hold.pid for hold in _holders(os.fstat(self.fd)) if hold.pid != os.getpid()]


class DeckyLocks:
    """The lock directory of one host.

    Args:
        runtime_dir: created with mode 0700 if missing; must be on a local file system.

    Raises:
        LocksUnusable: it can't be created or written.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self.directory = runtime_dir / "locks"
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

    def try_lock(self, decky_name: str, host_uuid: str | None) -> DeckyLock | None:
        """Take a decky's lock if it is free; None if somebody holds it.

        Raises:
            LocksUnusable: the file can't be opened.
        """
        path = self.path(decky_name, host_uuid)
        try:
            fd = open_private(path)
        except OSError as error:
            raise LocksUnusable(f"the lock file {path} can't be opened: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return DeckyLock(fd)

    def read(self, decky_name: str, host_uuid: str | None) -> Holder | None:
        """What the last holder wrote; None if nothing readable is there."""
        try:
            return msgspec.json.decode(self.path(decky_name, host_uuid).read_bytes(), type=Holder)
        except (OSError, msgspec.DecodeError):
            return None

    def holders(self, decky_name: str, host_uuid: str | None) -> list[Hold]:
        """Who holds this decky's lock now, as the kernel tells.

        An inherited descriptor shares its taker's open file description, and proc_pid_fdinfo(5) lists the
        lock there; a process that merely opened the same file has no such line. So this names exactly those
        who could still touch the decky, whatever session or parent they have.
        """
        try:
            return list(_holders(self.path(decky_name, host_uuid).stat()))
        except FileNotFoundError:
            return []

    def survivors(self, decky_name: str, host_uuid: str | None, owner_pid: int) -> list[int]:
        """Processes that hold this decky's lock because `owner_pid`, now dead, passed it on to them.

        Whoever took the lock itself is never among them: another worker on its way to a claim that will be
        refused, or another reaper that judges the same row.
        """
        return [
            hold.pid
            for hold in self.holders(decky_name, host_uuid)
            if hold.taker in {owner_pid, _UNSEEN} and hold.pid != hold.taker
        ]


@lru_cache(4096)  # a pass of the reaper asks for every open row
def _path(directory: Path, decky_name: str, host_uuid: str | None) -> Path:
    name = decky_name if host_uuid is None else f"{decky_name}@{host_uuid}"
    if not all(_PLAIN.fullmatch(part) for part in name.split("@")):
        name = "#" + hashlib.sha256(name.encode()).hexdigest()
    return directory / f"{name}.lock"


def _holders(file: os.stat_result) -> Iterator[Hold]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and (taker := _taker(process, file)) is not None:
            yield Hold(int(process.name), taker)


def _taker(process: Path, file: os.stat_result) -> int | None:
    """The pid that took the lock which this process holds on a file; None if it holds none."""
    # A process may end, or belong to somebody else, at any step of this.
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(descriptor.stat(), file):
                    told = (process / "fdinfo" / descriptor.name).read_text()
                    if (lock := _LOCK.search(told)) is not None:
                        return int(lock[1])
    return None


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
        if _taker(Path(f"/proc/{pid}"), locks.path(decky_name, host_uuid).stat()) is None:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return False
    else:
        return True
    finally:
        os.close(descriptor)
