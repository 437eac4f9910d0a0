"""When the write-ahead log is copied back into the database, and by whom.

SQLite 3.7.0 to 3.51.2 can corrupt a database when two processes checkpoint at once
(https://sqlite.org/wal.html#walresetbug), so SQLite's own checkpoints are off, and ours hold a lock on
`<store>.lock`. It is not worth a second code path for newer versions: the lock costs microseconds.
"""

import asyncio
import fcntl
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import aiosqlite

from repo.errors import StoreBusy
from repo.sqlite.connection import SqliteFile
from repo.sqlite.files import open_private

LOG_BYTES = 4 << 20
"""A log longer than this is copied back after the next commit."""

_PATIENCE = 4
"""A log that is this many times longer never got a quiet moment; then others are made to wait."""

_LONGEST_STALL_MS = 250

_LOOK_EVERY = 0.02
"""Seconds; looking costs two system calls."""

# https://sqlite.org/fileformat.html#walformat: the generation of the log is its salt
_HEADER = 32
_HEADER_PAGE_SIZE = slice(8, 12)
_HEADER_SALT = slice(16, 24)
_FRAME_HEADER = 24
_FRAME_SALT = slice(8, 16)


class Checkpoints:
    """The right to checkpoint one store. One writer uses it."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._lock = open_private(Path(f"{file.path}.lock"), like=file.path)
        self._next_look = 0.0
        self._done = (b"", 0)  # generation of the log, and how many of its bytes a checkpoint has seen

    def close(self) -> None:
        """Let go of the lock file."""
        os.close(self._lock)

    async def acquire(self) -> None:
        """Take the lock, waiting for as long as for any lock.

        Raises:
            StoreBusy: it was not to be had.
        """
        deadline = time.monotonic() + self._file.busy_timeout
        while not self._try_lock():
            if time.monotonic() > deadline:
                raise StoreBusy(
                    f"{self._file.path}: another process has been opening or checkpointing it for"
                    f" {self._file.busy_timeout:g} s; see who with `fuser -v {self._file.path}.lock`"
                )
            await asyncio.sleep(0.01)

    def release(self) -> None:
        """Give the lock back."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    async def run_if_due(self, connection: aiosqlite.Connection) -> None:
        """Copy the log back if it has grown enough and nobody else is at it. Failing is no news: the commit
        before it is safe in the log, and the next one finds out what is wrong.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY
        header = self._file.read_log(0, _HEADER)
        if len(header) < _HEADER:
            return
        generation, frame = header[_HEADER_SALT], _FRAME_HEADER + int.from_bytes(header[_HEADER_PAGE_SIZE])
        seen = self._done[1] if self._done[0] == generation else 0
        if not self._reaches(seen + LOG_BYTES, generation, frame) or not self._try_lock():
            return
        patient = not self._reaches(_PATIENCE * LOG_BYTES, generation, frame)
        try:
            with suppress(sqlite3.Error):
                frames = await (_copy_back(connection, "PASSIVE") if patient else self._insist(connection))
                self._done = generation, frames * frame
        finally:
            self.release()

    async def _insist(self, connection: aiosqlite.Connection) -> int:
        await connection.execute(f"PRAGMA busy_timeout = {_LONGEST_STALL_MS}")
        try:
            return await _copy_back(connection, "RESTART")
        finally:
            await connection.execute(f"PRAGMA busy_timeout = {round(self._file.busy_timeout * 1000)}")

    def _reaches(self, length: int, generation: bytes, frame: int) -> bool:
        """Whether the frame at `length` belongs to this generation; the file itself never shrinks."""
        return (
            self._file.read_log(_HEADER + length // frame * frame, _FRAME_HEADER)[_FRAME_SALT] == generation
        )

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def _copy_back(connection: aiosqlite.Connection, mode: str) -> int:
    ((_, frames, _),) = await connection.execute_fetchall(f"PRAGMA wal_checkpoint({mode})")
    return int(frames)
