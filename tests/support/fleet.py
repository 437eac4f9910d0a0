"""A whole installation in a temporary directory: a real queue, real daemons, real kill -9.

Daemons write JSON lines into a pipe, so a test awaits what the log says instead of sleeping.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Never, Self

import structlog

from reaper.settings import ReaperSettings, load
from repo.base import Lifecycle
from repo.factory import get_repository
from tests.support.store.witness import history, on_postgres, shared_database, witness
from worker.client import LifecycleClient
from worker.logging.emit import emit
from worker.queue.server import find_server, server_command, wait_ready
from worker.runtimes.process import ProcessRuntime

HANG_GUARD_S = 120.0


class ClientLog:
    """What the master's side has logged: tests are the master."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __call__(self, logger: object, method: str, line: MutableMapping[str, Any]) -> Never:
        self.lines.append(dict(line))
        raise structlog.DropEvent


CLIENT_LOG = ClientLog()


class Daemon:
    """One daemon process and what it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.garbage: list[str] = []
        self._ended = False
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            async with self._news:
                try:
                    self.lines.append(json.loads(raw))
                except ValueError:
                    self.garbage.append(raw.decode(errors="replace"))
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The lines of this event with these fields."""
        wanted = {"event": event, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]

    async def log(self, event: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until an event has been logged `count` times; the last of them."""
        wanted = {"event": event, **fields}
        with suppress(TimeoutError):
            async with asyncio.timeout(HANG_GUARD_S), self._news:
                await self._news.wait_for(lambda: self._ended or len(self.logged(**wanted)) >= count)
        found = self.logged(**wanted)
        assert len(found) >= count, f"{wanted} was not logged: {self.garbage or self.lines[-3:]}"
        return found[count - 1]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """kill -9, and wait until the kernel has buried it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(HANG_GUARD_S):
            status = await self.process.wait()
        await self._reading
        return status


class Fleet:
    """One installation: directories, queue, daemons, client."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.root = root
        self.environment = {key: value for key, value in os.environ.items() if "DECNET" not in key}
        self.environment |= {
            "DECNET_REAPER_CONFIG": str(root / "config.toml"),
            "DECNET_REAPER_STATE_DIR": str(root / "state"),
            "DECNET_REAPER_RUNTIME_DIR": str(root / "run"),
            "DECNET_REAPER_RUNTIME": "process",
            "DECNET_REAPER_LOG_FORMAT": "json",
            "DECNET_REAPER_REAP_INTERVAL": "1",
            "DECNET_REAPER_STRICT_EVENTS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        (root / "config.toml").touch()
        self.set(**settings)
        self.daemons: list[Daemon] = []
        self.queue: asyncio.subprocess.Process | None = None

    def set(self, **settings: str) -> Self:
        """Settings of what is started from now on."""
        self.environment |= {f"DECNET_REAPER_{name.upper()}": value for name, value in settings.items()}
        return self

    def lines(self) -> list[dict[str, Any]]:
        """All that was logged by its daemons and by the master."""
        return [line for daemon in self.daemons for line in daemon.lines] + CLIENT_LOG.lines

    @property
    def settings(self) -> ReaperSettings:
        names = {key: value for key, value in self.environment.items() if key.startswith("DECNET_REAPER_")}
        names.pop("DECNET_REAPER_STRICT_EVENTS")
        return load(ReaperSettings, names, strict=True)

    @property
    def socket(self) -> Path:
        return self.root / "run" / "queue.sock"

    async def make_store(self) -> None:
        """The store, and beside it the history of its rows."""
        async with get_repository(url=self.settings.database):
            witness(self.settings.database)

    def history(self) -> list[tuple[str, str | None, str | None]]:
        """What the rows went through: id, status before, status after, in the order of the commits."""
        return history(self.settings.database)

    async def start_queue(self, *options: str) -> None:
        """A real server on a unix socket, with more options; what an earlier one held is gone."""
        binary = find_server()
        assert binary is not None
        data = self.root / "state" / "queue"
        for directory in (data, self.socket.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.queue = await asyncio.create_subprocess_exec(
            *server_command(binary, self.socket, data), *options, stdout=subprocess.DEVNULL
        )
        await wait_ready(self.socket, HANG_GUARD_S)

    async def kill_queue(self) -> None:
        if self.queue is not None and self.queue.returncode is None:
            self.queue.kill()
            await self.queue.wait()
        self.queue = None

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The words of a command of ours."""
        return (sys.executable, "-m", "reaper", *arguments)

    async def run(self, *arguments: str, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
        """Run a command; its exit status, stdout and stderr."""
        # A file, since asyncio before Python 3.12 complains later of a pipe whose reader has read enough.
        with tempfile.TemporaryFile(dir=self.root) as given:
            given.write(stdin)
            given.seek(0)
            process = await asyncio.create_subprocess_exec(
                *self.command(*arguments),
                env=self.environment | environment,
                stdin=given,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        async with asyncio.timeout(HANG_GUARD_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def start(self, *daemon: str, **environment: str) -> Daemon:
        """Start a daemon, with its options, without waiting for it."""
        return await self.start_in((), *daemon, **environment)

    async def start_in(self, wrapper: tuple[str, ...], *daemon: str, **environment: str) -> Daemon:
        """Start a daemon by a program that executes the rest of its command line."""
        process = await asyncio.create_subprocess_exec(
            *(*wrapper, *self.command(*daemon)),
            env=self.environment | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=1 << 20,
        )
        started = Daemon(process)
        self.daemons.append(started)
        return started

    async def worker(self, **environment: str) -> Daemon:
        """A worker that is ready."""
        worker = await self.start("worker", **environment)
        await worker.log("worker.started")
        return worker

    async def reaper(self, **environment: str) -> Daemon:
        """A reaper that is ready; its first pass is done."""
        reaper = await self.start("reaper", **environment)
        await reaper.log("reaper.started")
        return reaper

    def gate(self, name: str = "gate") -> Path:
        """A file whose making lets gated operations through."""
        return self.root / name

    def document(self, decky_name: str, *services: str, gate: Path | None = None) -> dict[str, Any]:
        """A decky for the process runtime; with a gate, `up` waits until that file is there."""
        idle = {"command": ["sleep", "3600"]}
        share = {"network_mode": f"service:{decky_name}", "depends_on": [decky_name]}
        document: dict[str, Any] = {"services": {decky_name: dict(idle)}}
        for service in services:
            document["services"][f"{decky_name}-{service}"] = {**idle, **share}
        if gate is not None:
            document["services"][decky_name]["healthcheck"] = {
                "test": ["CMD", "test", "-e", str(gate)],
                "interval": "50ms",
                "retries": 100_000,
            }
        return document

    @asynccontextmanager
    async def client(self) -> AsyncIterator[LifecycleClient]:
        async with LifecycleClient(self.settings) as client:
            yield client

    async def close(self) -> None:
        for daemon in self.daemons:
            if daemon.process.returncode is None:
                daemon.signal(signal.SIGCONT)
            await daemon.kill()
        await self.kill_queue()
        runtime = ProcessRuntime(self.root / "state")
        for directory in (self.root / "state" / "deckies").glob("*"):
            await runtime.remove(directory.name)


@asynccontextmanager
async def running_fleet(**settings: str) -> AsyncIterator[Fleet]:
    """A fleet with a queue, gone afterwards. Its path is short, for the sake of AF_UNIX."""
    root = Path(tempfile.mkdtemp(prefix="fleet-"))
    fleet = Fleet(root, **({"database": shared_database()} if on_postgres() else {}) | settings)
    CLIENT_LOG.lines.clear()
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    structlog.configure(processors=[structlog.stdlib.add_log_level, stamp, CLIENT_LOG])
    try:
        await fleet.make_store()
        await fleet.start_queue()
        yield fleet
    finally:
        await fleet.close()
        shutil.rmtree(root, ignore_errors=True)


def exits(*command: str) -> dict[str, Any]:
    """A service that ends by itself: it is never up, however late it is begun on a busy machine."""
    return {"command": [*command], "healthcheck": {"test": ["CMD", "false"]}}


async def accept(client: LifecycleClient, decky_name: str, **data: Any) -> str:
    """Accept a row as a master with code of its own would: it is written and told, and not rung for."""
    wanted = {"decky_name": decky_name, "operation": "deploy", **data}
    row = await client.get(await client.repository.create_lifecycle(wanted))
    emit("lifecycle.accepted", row, started_at=row["started_at"])
    return str(row["id"])


async def wait_status(client: LifecycleClient, lifecycle_id: str, status: str) -> Lifecycle:
    """Wait until a row has this status. A row can only be asked, so this asks."""
    async with asyncio.timeout(HANG_GUARD_S):
        while (row := await client.get(lifecycle_id))["status"] != status:
            await asyncio.sleep(0.01)
    return row


async def gated(fleet: Fleet, client: LifecycleClient, decky_name: str = "decky-01") -> str:
    """A deploy that runs until the fleet's gate is made."""
    lifecycle_id = await client.deploy(decky_name, fleet.document(decky_name, gate=fleet.gate()))
    await wait_status(client, lifecycle_id, "running")
    return lifecycle_id
