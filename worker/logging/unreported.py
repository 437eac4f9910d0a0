"""What is being ended and has not been told yet: a kill -9 between a commit and its line loses no line.

Each process notes a row in a file of its own before it ends it, and wipes the note out when the line is out.
It holds the file with flock(2), so a file that nobody holds is a dead process's: the next pass of a reaper
tells what that one could not. Told at least once, that is: a process killed in the microseconds between a
line and the wiping leaves that one row to be told again, with the same content.
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repo.base import Outcome, Row
from repo.files import open_private
from worker.logging.events import OUTCOMES

_SLOT = 128
_SLOTS = 256
_BLANK = b" " * (_SLOT - 1) + b"\n"


class Note(NamedTuple):
    """How a row was about to be ended."""

    outcome: Outcome
    digest: str

    def fits(self, row: Row) -> bool:
        """Whether the row ended like this, and not in a way that somebody else has told."""
        status = "succeeded" if self.outcome == "succeeded" else "failed"
        return row["status"] == status and self.digest == _digest(row["error"])


class Unreported:
    """The notes of this process; their file is made at the first one. What can't be noted is left out.

    Args:
        runtime_dir: the files are below it, since a reboot ends the log's readers too.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._directory = runtime_dir / "untold"
        self._files: list[_File] = []
        self._free: list[_Slot] = []
        self._used: dict[str, _Slot] = {}

    def begin(self, lifecycle_id: str, outcome: Outcome, error: str | None) -> None:
        """Note that a row is about to be ended, and how."""
        note = f"{lifecycle_id} {outcome} {_digest(error)}".encode()
        if len(note) >= _SLOT:
            return
        if (slot := self._used.get(lifecycle_id) or self._free_slot()) is not None:
            self._used[lifecycle_id] = slot
            slot.write(note)

    def told(self, lifecycle_id: str) -> None:
        """Note that the row's line is out, or that there is none to write."""
        if (slot := self._used.pop(lifecycle_id, None)) is not None:
            slot.write(b"")
            self._free.append(slot)

    def _free_slot(self) -> "_Slot | None":
        if not self._free:
            with contextlib.suppress(OSError):
                self._files.append(_File(self._directory))
                self._free = self._files[-1].slots()
        return self._free.pop() if self._free else None


class _Slot(NamedTuple):
    """One line of a file in memory, which outlives its process. Writing one takes no system call."""

    memory: mmap.mmap
    start: int

    def write(self, note: bytes) -> None:
        # A process killed in here leaves a line that names no row, or no way to end one.
        self.memory[self.start : self.start + _SLOT] = note + _BLANK[len(note) :]


class _File:
    """One file of this process, held until the object goes.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        path = directory / f"{os.getpid()}-{secrets.token_hex(4)}"
        # It gets the name that readers look for once it is held, or one of them would take it for abandoned.
        new = path.with_name(f".{path.name}")
        fd = open_private(new)
        weakref.finalize(self, os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # All of it now: memory that the disk has no room for kills who writes there: SIGBUS, mmap(2).
            os.posix_fallocate(fd, 0, _SLOT * _SLOTS)
            self._memory = mmap.mmap(fd, _SLOT * _SLOTS)
            self._memory[:] = _BLANK * _SLOTS
            new.rename(path)
        except OSError:
            new.unlink()
            raise

    def slots(self) -> list[_Slot]:
        """Its lines."""
        return [_Slot(self._memory, number * _SLOT) for number in range(_SLOTS)]


@contextlib.contextmanager
def abandoned(runtime_dir: Path) -> Iterator[dict[str, list[Note]]]:
    """What dead processes left untold, by lifecycle id. Their files go when the block ends well.

    Several may have been about to end a row, such as a worker and the reaper that found it dead. Of several
    reapers that look at once, one gets each file.
    """
    untold: dict[str, list[Note]] = {}
    files: list[tuple[Path, int]] = []
    try:
        for path in (runtime_dir / "untold").glob("[0-9]*"):
            if (fd := _take(path)) is not None:
                files.append((path, fd))
                for lifecycle_id, note in _read(fd).items():
                    untold.setdefault(lifecycle_id, []).append(note)
        yield untold
        for path, _ in files:
            path.unlink(missing_ok=True)
    finally:
        for _, fd in files:
            os.close(fd)


def _take(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
        except BlockingIOError:
            pass
        os.close(fd)
    return None


def _read(fd: int) -> dict[str, Note]:
    untold: dict[str, Note] = {}
    with open(fd, closefd=False, errors="replace") as file:
        for line in file:
            lifecycle_id, *noted = line.split() or [""]
            if len(noted) == 2 and noted[0] in OUTCOMES:
                untold[lifecycle_id] = Note(OUTCOMES[noted[0]], noted[1])
    return untold


def _digest(error: str | None) -> str:
    # Of the beginning, since the store cuts what is long.
    return "-" if error is None else f"{zlib.crc32(error[:1000].encode(errors='replace')):x}"
