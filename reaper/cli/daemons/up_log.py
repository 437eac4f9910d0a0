"""The log of `decnet-reaper up`: shown in its terminal, and kept for `decnet-reaper logs`."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from reaper.settings import ReaperSettings
from repo.sqlite.files import open_private
from worker.logging.console import ConsoleLine

_LIMIT: Final = 16 << 20
"""Bytes of the file; when it is full it becomes up.log.1, in place of the one before."""
_LONGEST_LINE: Final = 1 << 20
_SIGN_OF_LIFE: Final = "reaper.watching"
"""Written each minute, for alerts; who looks at a terminal needs no sign."""


def up_log(state_dir: Path) -> Path:
    """Where the log of an `up` with this state directory is."""
    return state_dir / "up.log"


class UpLog:
    """Takes the lines of the daemons, in JSON, keeps each and shows it as the settings say."""

    def __init__(self, settings: ReaperSettings) -> None:
        self._path = up_log(settings.state_dir)
        self._fd = self._open()
        terminal = sys.stderr.isatty()
        width = shutil.get_terminal_size().columns if terminal else 0
        readable = settings.log_format == "console" or (settings.log_format == "auto" and terminal)
        self._console = ConsoleLine(colours=terminal, width=width) if readable else None
        self._copying: set[asyncio.Task[None]] = set()

    def pipe(self) -> int:
        """A descriptor for a daemon to log to; what comes there is taken until the daemon's end."""
        reading, writing = os.pipe()
        copying = asyncio.create_task(self._copy(reading))
        self._copying.add(copying)
        copying.add_done_callback(self._copying.discard)
        return writing

    async def drain(self) -> None:
        """Wait for the last lines of daemons that have ended."""
        await asyncio.gather(*self._copying)

    async def _copy(self, reading: int) -> None:
        stream = asyncio.StreamReader(limit=_LONGEST_LINE)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb", buffering=0)
        )
        try:
            while line := await stream.readline():
                self._keep(line)
                self._show(line.decode(errors="replace").rstrip("\n"))
        finally:
            transport.close()

    def _open(self) -> int:
        return open_private(self._path, os.O_WRONLY | os.O_APPEND)

    def _keep(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # a log that can't be written stops no operation
            if os.fstat(self._fd).st_size > _LIMIT:
                self._begin_anew()
            os.write(self._fd, line)

    def _begin_anew(self) -> None:
        """Keep the file that is full, and begin the next; where that fails, the old one goes on."""
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):  # the next file couldn't be made the last time
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            new = self._open()
            os.dup2(new, self._fd, inheritable=False)
            os.close(new)

    def _show(self, text: str) -> None:
        if self._console is not None:
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if isinstance(line, dict):
                if line.get("event") == _SIGN_OF_LIFE:
                    return
                text = self._console(None, "", line)
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - what a daemon logged
