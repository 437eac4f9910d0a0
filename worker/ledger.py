"""What is being ended and has not been told yet: a kill -9 between a commit and its line loses no line.

Each process notes a row in a file of its own before it ends it, and once more after the line is out. It holds
the file with flock(2), so a file that nobody holds is a dead process's: the next pass of a reaper tells what
that one could not. Told at least once, that is: a process killed in the microseconds between a line and its
note leaves that one row to be told again, with the same content.
"""

import contextlib
import fcntl
import os
import secrets
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repo.base import Row
from repo.private_file import open_private
from worker.events import OUTCOMES, Outcome

# Told and untold alike, in bytes. A file that grows past it is begun anew with what is untold.
_LARGEST = 256 * 1024


class Note(NamedTuple):
    """How a row was about to be ended."""

    outcome: Outcome
    digest: str

    def fits(self, row: Row) -> bool:
        """Whether the row ended like this, and not in a way that somebody else has told."""
        status = "succeeded" if self.outcome == "succeeded" else "failed"
        return row["status"] == status and self.digest == _digest(row["error"])


class Ledger:
    """The file of this process; it is made at the first note. Notes that can't be written are left out.

    Args:
        runtime_dir: the file is below it, since a reboot ends the log's readers too.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._directory = runtime_dir / "untold"
        self._untold: dict[str, str] = {}
        self._file: _File | None = None

    def begin(self, lifecycle_id: str, outcome: Outcome, error: str | None) -> None:
        """Note that a row is about to be ended, and how."""
        self._untold[lifecycle_id] = f"{lifecycle_id} {outcome} {_digest(error)}\n"
        self._write(self._untold[lifecycle_id])

    def told(self, lifecycle_id: str) -> None:
        """Note that the row's line is out, or that there is none to write."""
        self._untold.pop(lifecycle_id, None)
        if self._untold:
            self._write(f"{lifecycle_id}\n")
        elif self._file is not None:
            with contextlib.suppress(OSError):
                self._file.empty()

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = _File(self._directory, text)
            elif self._file.size < _LARGEST:
                self._file.append(text)
            else:
                # What is noted twice for a moment is told once; what is noted nowhere would be lost.
                old, self._file = self._file, _File(self._directory, "".join(self._untold.values()))
                old.path.unlink(missing_ok=True)


class _File:
    """One file of this process, held until the object goes. Every method raises OSError."""

    def __init__(self, directory: Path, text: str) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(4)}"
        self.size = 0
        # It gets the name that readers look for once it is held, or one of them would take it for abandoned.
        new = self.path.with_name(f".{self.path.name}")
        self._fd = open_private(new, os.O_WRONLY | os.O_APPEND)
        weakref.finalize(self, os.close, self._fd)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self.append(text)
            new.rename(self.path)
        except OSError:
            new.unlink()
            raise

    def append(self, text: str) -> None:
        self.size += os.write(self._fd, text.encode())

    def empty(self) -> None:
        os.ftruncate(self._fd, 0)
        self.size = 0


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
            untold.pop(lifecycle_id, None)
            if len(noted) == 2 and noted[0] in OUTCOMES:
                untold[lifecycle_id] = Note(OUTCOMES[noted[0]], noted[1])
    return untold


def _digest(error: str | None) -> str:
    # Of the beginning, since the store cuts what is long.
    return "-" if error is None else f"{zlib.crc32(error[:1000].encode(errors='replace')):x}"
