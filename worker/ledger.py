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

from repo.base import OPEN, Row
from repo.private_file import open_private
from worker.events import OUTCOMES, Outcome


class Note(NamedTuple):
    """How a row was about to be ended."""

    outcome: Outcome
    digest: str

    def fits(self, row: Row) -> bool:
        """Whether the row ended like this, and not in a way that somebody else has told."""
        return row["status"] not in OPEN and self.digest == _digest(row["error"])


class Ledger:
    """The file of this process; it is made at the first note. Notes that can't be written are left out.

    Args:
        runtime_dir: the file is below it, since a reboot ends the log's readers too.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._directory = runtime_dir / "untold"
        self._untold: set[str] = set()
        self._fd: int | None = None

    def begin(self, lifecycle_id: str, outcome: Outcome, error: str | None) -> None:
        """Note that a row is about to be ended, and how."""
        self._untold.add(lifecycle_id)
        self._write(f"{lifecycle_id} {outcome} {_digest(error)}\n")

    def told(self, lifecycle_id: str) -> None:
        """Note that the row's line is out, or that there is none to write."""
        self._untold.discard(lifecycle_id)
        self._write(f"{lifecycle_id}\n")
        if not self._untold and self._fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            if self._fd is None:
                self._fd = self._make()
                weakref.finalize(self, os.close, self._fd)
            os.write(self._fd, text.encode())

    def _make(self) -> int:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        # It gets the name that readers look for once it is held, or one of them would take it for abandoned.
        new = self._directory / f".{os.getpid()}-{secrets.token_hex(4)}"
        fd = open_private(new, os.O_WRONLY | os.O_APPEND)
        fcntl.flock(fd, fcntl.LOCK_EX)
        new.rename(new.with_name(new.name[1:]))
        return fd


@contextlib.contextmanager
def abandoned(runtime_dir: Path) -> Iterator["dict[str, Note]"]:
    """What dead processes left untold, by lifecycle id. Their files go when the block ends well.

    Of several reapers that look at once, one gets each file.
    """
    untold: dict[str, Note] = {}
    files: list[tuple[Path, int]] = []
    try:
        for path in (runtime_dir / "untold").glob("[0-9]*"):
            if (fd := _take(path)) is not None:
                files.append((path, fd))
                untold |= _read(fd)
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
