"""A command on a real terminal (pty(7)): what it shows there, as it goes on."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.support.fleet import HANG_GUARD_S, Fleet

# What would have the last word over the terminal itself; pytest-xdist sets COLUMNS for its workers.
_OVERRIDES = {"NO_COLOR", "COLUMNS", "LINES"}
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Terminal:
    """Runs one command; use as an async context manager.

    Args:
        fleet: whose installation it works on.
        arguments: of the command.
        program: what is run with them; default decnet-reaper.
        columns: width of the terminal.
        environment: added to the fleet's.
    """

    def __init__(
        self,
        fleet: Fleet,
        *arguments: str,
        program: Sequence[str] = (sys.executable, "-m", "reaper"),
        columns: int = 80,
        **environment: str,
    ) -> None:
        self._program = program
        self._fleet, self._arguments, self._columns, self._environment = (
            fleet,
            arguments,
            columns,
            environment,
        )
        self.raw = ""
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def text(self) -> str:
        """All that was shown, without colours and movements."""
        return _ESCAPES.sub("", self.raw)

    async def __aenter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self._columns, 0, 0))
        environment = {key: text for key, text in self._fleet.environment.items() if key not in _OVERRIDES}
        self.process = await asyncio.create_subprocess_exec(
            *(*self._program, *self._arguments),
            env=environment | {"TERM": "xterm-256color", "COLORTERM": ""} | self._environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # As a shell does for its jobs: what runs these tests in the background had it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)

    def _read(self) -> None:
        try:
            chunk = os.read(self._ours, 65536)
        except OSError:  # EIO: the command has ended
            chunk = b""
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._ours)
            self._over.set()
        self.raw += chunk.decode(errors="replace")
        self._news.set()

    def types(self, text: str) -> None:
        """Press these keys."""
        os.write(self._ours, text.encode())

    async def shows(self, text: str) -> None:
        """Wait until it has shown this text."""
        async with asyncio.timeout(HANG_GUARD_S):
            while text not in self.text:
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> int:
        """Its exit status; all that it showed has been read then."""
        async with asyncio.timeout(HANG_GUARD_S):
            await self._over.wait()
            return await self.process.wait()
