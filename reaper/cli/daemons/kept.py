"""Processes that `decnet-reaper up` keeps running."""

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence

import click

from reaper.cli.daemons.up_log import UpLog

_PAUSE_S = (0.25, 5.0)
"""From a process's end to its next start: at first, and at most, where it ends soon each time."""


class Stop:
    """How somebody asks for the end: once, to let things finish; again, to end them.

    Attributes:
        asked: set at the first time.
        now: set at the second.
    """

    def __init__(self) -> None:
        self.asked, self.now = asyncio.Event(), asyncio.Event()

    def ask(self) -> None:
        """Ask, for the first time or again."""
        (self.now if self.asked.is_set() else self.asked).set()


async def keep(name: str, command: Sequence[str], stop: Stop, log: UpLog | None) -> None:
    """Keep one process running until told to stop; then let it end.

    Args:
        name: what it is called where it can't be started.
        command: what to run.
        stop: SIGTERM is sent when it is asked for, SIGKILL when it is asked for again.
        log: where its lines go; None for a server, which logs nothing that is needed.
    """
    pause, told = _PAUSE_S[0], False
    asked, now = asyncio.create_task(stop.asked.wait()), asyncio.create_task(stop.now.wait())
    while not stop.asked.is_set():
        begun = time.monotonic()
        try:
            process = await _start(command, log)
        except OSError as error:
            if not told:
                click.echo(f"decnet-reaper: the {name} can't be started, is tried again: {error}", err=True)
            told, pause = True, min(2 * pause, _PAUSE_S[1])
            await asyncio.wait({asked}, timeout=pause)
            continue
        told = False
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if stop.asked.is_set():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait({ended, now}, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await ended
        else:
            pause = _PAUSE_S[0] if time.monotonic() - begun > _PAUSE_S[1] else min(2 * pause, _PAUSE_S[1])
            await asyncio.wait({asked}, timeout=pause)
    now.cancel()


async def _start(command: Sequence[str], log: UpLog | None) -> asyncio.subprocess.Process:
    stderr = None if log is None else log.pipe()
    try:
        # Its own session: Ctrl-C is for us, and we end the daemons in order.
        return await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", *command),
            stdin=asyncio.subprocess.DEVNULL,
            # The daemons log to stderr; the server greets on stdout, which would break the log's lines.
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            env=os.environ | {"DECNET_REAPER_LOG_FORMAT": "json"},
            start_new_session=True,
        )
    finally:
        if stderr is not None:
            os.close(stderr)
