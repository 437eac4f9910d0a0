"""Which processes hold a lock, as the kernel tells, and ending one of them.

An inherited descriptor shares its taker's open file description, and proc_pid_fdinfo(5) lists the lock there;
a process that merely opened the same file has no such line. So this names exactly those who could still touch
a decky, whatever session or parent they have. A process of another user, or one that hides, is not seen.
"""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# As in /proc/locks: number, kind, mode, access, pid of the taker, device and inode, range.
_LOCK = re.compile(r"^lock:\s+\d+: FLOCK\s+\S+\s+\S+\s+(\d+) ", re.MULTILINE)

UNSEEN = 0
"""The taker of a lock who is dead and was of another pid namespace."""


# A process may end, or belong to somebody else, at any step of a look. Anything else, such as no descriptor
# left to look with, is no answer.
_NOT_OURS_TO_SEE = FileNotFoundError, ProcessLookupError, PermissionError


class Hold(NamedTuple):
    """One process that holds a lock.

    Attributes:
        pid: the process.
        taker: the process that took the lock; UNSEEN if that can't be known any more.
        file: the path of the locked file, " (deleted)" behind it where it is.
        inode: of the locked file.
    """

    pid: int
    taker: int
    file: str
    inode: int


Wanted = Callable[["os.DirEntry[str]"], bool]
"""Whether the file behind an entry of /proc/<pid>/fd is one whose holders are asked for."""


def same_file(fd: int) -> Wanted:
    """The file that is open at this descriptor of ours."""
    ours = os.fstat(fd)
    return lambda entry: os.path.samestat(entry.stat(), ours)


def holds_of(wanted: Wanted) -> list[Hold]:
    """Every process that holds a lock on one of these files."""
    with os.scandir("/proc") as processes:
        pids = [int(process.name) for process in processes if process.name.isdecimal()]
    return [hold for pid in pids for hold in _holds_by(pid, wanted)]


def may_hold(pid: int, wanted: Wanted) -> bool:
    """Whether a process holds a lock on one of these files, or can't be looked at."""
    try:
        return any(True for _ in _look_at(pid, wanted))
    except _NOT_OURS_TO_SEE:
        return True


def _holds_by(pid: int, wanted: Wanted) -> Iterator[Hold]:
    with contextlib.suppress(*_NOT_OURS_TO_SEE):
        yield from _look_at(pid, wanted)


def _look_at(pid: int, wanted: Wanted) -> Iterator[Hold]:
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            with contextlib.suppress(FileNotFoundError):
                if wanted(descriptor):
                    facts = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
                    if (lock := _LOCK.search(facts)) is not None:
                        path = os.readlink(descriptor.path)  # noqa: PTH115 - which keeps " (deleted)"
                        yield Hold(pid, int(lock[1]), path, descriptor.stat().st_ino)


def end_holder(hold: Hold) -> bool:
    """Kill one process that holds a lock, never another one that has come to its pid.

    The pidfd is opened first, then the process is looked at again, so that what was looked at is what is
    signalled (pidfd_open(2)).

    Returns:
        Whether it held the lock and was signalled.
    """
    try:
        descriptor = os.pidfd_open(hold.pid)
    except ProcessLookupError:
        return False
    try:
        if hold not in _holds_by(hold.pid, lambda entry: entry.stat().st_ino == hold.inode):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    else:
        return True
    finally:
        os.close(descriptor)
