"""The standard streams of our processes: whatever is wrong with them, no traceback, no wrong exit status.

Python flushes them once more when a process ends, and exits with 120 where that fails, whatever the status
was to be. A line of log that can't be written is lost, since no operation may fail for that; output
that can't be written is an error.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from repo.errors import DecnetReaperError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputLost(DecnetReaperError):
    """Stdout can't be written: its disk is full, or it is closed."""

    exit_status = 3


class ReaderGone(Exception):
    """Stdout is a pipe that nobody reads any more."""


def open_streams() -> None:
    """Put streams that keep these promises in the place of sys.stdout and sys.stderr.

    A descriptor that our caller has closed is taken, so that no file that is opened later gets its number.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # writing to 1 still fails
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - open for as long as the process lives
    sys.stdout = _stream(1, sys.stdout, _raise_output_lost)
    sys.stderr = _stream(2, sys.stderr, lambda error: None)


def _raise_output_lost(error: OSError) -> None:
    if error.errno == errno.EPIPE:
        raise ReaderGone from None
    raise OutputLost(f"the output can't be written: {error.strerror}") from None


def _stream(fd: int, old: TextIO | None, on_error: Callable[[OSError], None]) -> TextIO:
    raw = _Raw(fd, on_error)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=old.encoding if old else None,
        errors="backslashreplace",  # what this encoding doesn't have is no error either
        line_buffering=fd == 2 or raw.isatty(),
    )


class _Raw(io.FileIO):
    """Says once that it can't be written; what comes later is dropped, Python's own last flush too."""

    def __init__(self, fd: int, on_error: Callable[[OSError], None]) -> None:
        super().__init__(fd, "w", closefd=False)
        self._on_error = on_error
        self._lost = False

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not self._lost:
                self._lost = True
                self._on_error(error)
        return memoryview(data).nbytes
