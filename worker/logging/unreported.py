"""Ends of rows that may not have been logged: a kill -9 between a commit and its line loses no line.

Each process notes a row in a file of its own before it ends it, and wipes the note out when the line is out.
It holds the file with flock(2), so a file that nobody holds is a dead process's: the next sweep of a reaper
logs what that one could not. Logged at least once, that is: a process killed in the microseconds between a
line and the wiping leaves that one row to be logged again, with the same content.
"""

import contextlib
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from repo.base import OUTCOMES, Lifecycle, Outcome
from worker.liveness.lock_directory import LockDirectory

_FOLDER = "unreported"
_SLOT = 128
_SLOTS = 256
_BLANK = b" " * (_SLOT - 1) + b"\n"
_OUTCOME: Final[dict[str, Outcome]] = {outcome: outcome for outcome in OUTCOMES}

Note = tuple[str, Outcome]
"""A lifecycle id, and how its row was about to end."""


def ended_as_noted(row: Lifecycle, outcome: Outcome) -> bool:
    """Whether a row ended as somebody was about to end it, and not in a way that another one has logged."""
    # The store makes a cancel of what came to no end of its own, where one was accepted before.
    cancelled = row["outcome"] == "cancelled" and outcome not in {"succeeded", "failed"}
    return cancelled or row["outcome"] == outcome


class Unreported:
    """The notes of this process; their file is made at the first one. What can't be noted is left out.

    Args:
        directory: the files are in it, where every reaper of the store finds them.
    """

    def __init__(self, directory: LockDirectory) -> None:
        self._directory = directory
        self._free: list[_Slot] = []
        self._used: dict[str, _Slot] = {}

    def begin(self, lifecycle_id: str, outcome: Outcome) -> None:
        """Note that a row is about to be ended, and how."""
        note = f"{lifecycle_id} {outcome}".encode()
        if len(note) >= _SLOT:
            return
        if (slot := self._used.get(lifecycle_id) or self._free_slot()) is not None:
            self._used[lifecycle_id] = slot
            slot.write(note)

    def done(self, lifecycle_id: str) -> None:
        """Note that the row's line is out, or that there is none to write."""
        if (slot := self._used.pop(lifecycle_id, None)) is not None:
            slot.write(b"")
            self._free.append(slot)

    def _free_slot(self) -> "_Slot | None":
        if not self._free:
            with contextlib.suppress(OSError):
                self._free = _new_slots(self._directory)
        return self._free.pop() if self._free else None


class _Slot:
    """One line of a file in memory, which outlives its process. Writing one takes no system call."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._part = slice(start, start + _SLOT)

    def write(self, note: bytes) -> None:
        # A process killed in here leaves a line that names no row, or no way to end one.
        self._memory[self._part] = note + _BLANK[len(note) :]


def _new_slots(directory: LockDirectory) -> list[_Slot]:
    """The lines of a new file of this process.

    Raises:
        OSError: it can't be made.
    """
    path = directory.folder(_FOLDER) / f"{os.getpid()}-{secrets.token_hex(4)}"
    # It gets the name that readers look for once it is held, or one of them would take it for abandoned.
    new = path.with_name(f".{path.name}")
    fd = directory.open(f"{_FOLDER}/{new.name}")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        # All of it now: memory that the disk has no room for kills who writes there: SIGBUS, mmap(2).
        os.posix_fallocate(fd, 0, _SLOT * _SLOTS)
        memory = mmap.mmap(fd, _SLOT * _SLOTS)  # keeps a duplicate of the descriptor, and so the lock
        memory[:] = _BLANK * _SLOTS
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return [_Slot(memory, number * _SLOT) for number in range(_SLOTS)]


@contextlib.contextmanager
def abandoned(directory: LockDirectory) -> Iterator[set[Note]]:
    """What dead processes left unreported. When the block ends well, only the notes that it left stay.

    Several may have been about to end a row, such as a worker and the reaper that found it dead. Of several
    reapers that look at once, one gets each file.
    """
    files: list[tuple[Path, int, set[Note]]] = []
    try:
        for path in _listed(directory.path / _FOLDER):
            if (fd := _take(path)) is not None:
                files.append((path, fd, _read(fd)))
        left = {note for _, _, notes in files for note in notes}
        yield left
        for path, fd, notes in files:
            if not notes & left:
                path.unlink(missing_ok=True)
            elif not notes <= left:
                _write(fd, notes & left)
    finally:
        for _, fd, _ in files:
            os.close(fd)


def _listed(folder: Path) -> list[Path]:
    # A folder that can't be looked at now (none yet, no descriptor left) is left to a later sweep.
    with contextlib.suppress(OSError):
        return [path for path in folder.iterdir() if path.name[0].isdecimal()]
    return []


def _take(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
        except BlockingIOError:
            pass
        os.close(fd)
    return None


def _read(fd: int) -> set[Note]:
    notes: set[Note] = set()
    with open(fd, closefd=False, errors="replace") as file:
        for line in file:
            lifecycle_id, *outcome = line.split() or [""]
            if len(outcome) == 1 and outcome[0] in _OUTCOME:
                notes.add((lifecycle_id, _OUTCOME[outcome[0]]))
    return notes


def _write(fd: int, notes: set[Note]) -> None:
    text = "".join(f"{lifecycle_id} {outcome}\n" for lifecycle_id, outcome in notes).encode()
    # In this order: killed in between, notes stay that were settled.
    os.ftruncate(fd, os.pwrite(fd, text, 0))
