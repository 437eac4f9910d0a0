"""Errors where nobody expects any: in hooks, log calls, runtimes. The worker goes on, the row says why."""

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final, Never, Self

import pytest
import structlog
from redis.asyncio import Redis

from repo.base import Lifecycle
from tests.support.audit import audit
from tests.support.fleet import HANG_GUARD_S, Fleet, gated, running_fleet
from worker.execution.executor import Executor
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.queue import Delivery, Outage, Queue, QueueWorker, SweepCron
from worker.settings import WorkerSettings

pytestmark = pytest.mark.anyio


class Unexpected(BaseException):
    """Not even an Exception."""


class RaisingRuntime:
    """A runtime that meets what no runtime should meet."""

    name: Final = "process"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        return cls(RuntimeError())

    async def check(self) -> str:
        return ""

    async def apply(self, decky_name: str, document: dict[str, Any], **_: object) -> None:
        raise self._error

    async def remove(self, decky_name: str, **_: object) -> None: ...


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("a bug"), "RuntimeError: a bug"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (TimeoutError("ETIMEDOUT"), "TimeoutError: ETIMEDOUT"),
        (MemoryError(), "MemoryError: "),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (ExceptionGroup("several", [ValueError("one")]), "ExceptionGroup: several (1 sub-exception)"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError: "),
        (RuntimeError("\ud800\0"), "RuntimeError: "),
        (Unexpected("what"), "Unexpected: what"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_runtime_raises_is_the_row_s_reason(
    fleet: Fleet, error: BaseException, said: str
) -> None:
    queue = Queue(fleet.settings.redis)
    async with fleet.client() as client:
        locks = DeckyLocks.of(fleet.settings)
        owner = Owner.mine(locks.directory.id)
        executor = Executor(client.repository, queue, locks, RaisingRuntime(error), fleet.settings, owner)
        lifecycle_id = await client.deploy("decky-a", fleet.document("decky-a"))
        await executor.execute(lifecycle_id, "decky-a")
        row = await client.get(lifecycle_id)
        assert row["status"] == "failed"
        assert str(row["error"]).startswith(said)
        assert DeckyLocks.of(fleet.settings).holders("decky-a", None) == []
    await queue.close()


async def test_a_state_directory_that_is_gone_fails_the_row_and_not_the_worker(fleet: Fleet) -> None:
    worker = await fleet.worker()
    deckies = fleet.root / "state" / "deckies"
    async with fleet.client() as client:
        first = await gated(fleet, client, "decky-a")
        async with asyncio.timeout(HANG_GUARD_S):
            while not (deckies / "decky-a" / "decky-a.log").exists():
                await asyncio.sleep(0.01)
        shutil.rmtree(deckies)
        deckies.write_text("not a directory")
        second = await client.deploy("decky-b", fleet.document("decky-b"))
        row = await client.wait(second, timeout=30)
        assert row["status"] == "failed"
        assert "the state directory" in (row["error"] or "")
        deckies.unlink()
        fleet.gate().touch()
        assert (await client.wait(first, timeout=30))["status"] in {"succeeded", "failed"}
        third = await client.deploy("decky-b", fleet.document("decky-b"))
        assert (await client.wait(third, timeout=30))["status"] == "succeeded"
        assert worker.logged("worker.job_crashed") == []
        await audit(fleet, client)


async def test_a_log_that_raises_does_not_end_the_loop(fleet: Fleet) -> None:
    handled: asyncio.Queue[str] = asyncio.Queue()
    logged: asyncio.Queue[str] = asyncio.Queue()

    def full(_logger: object, _method: str, line: MutableMapping[str, Any]) -> Never:
        logged.put_nowait(line["event"])
        raise OSError(errno.ENOSPC, "the log is full")

    async def handler(lifecycle_id: str, _decky_name: str) -> None:
        await handled.put(lifecycle_id)
        raise RuntimeError("a handler")

    structlog.configure(processors=[full])
    worker = QueueWorker(fleet.settings.redis, handler, job_timeout=60, outage=Outage("redis"))
    running = asyncio.create_task(worker.run())
    queue = Queue(fleet.settings.redis)
    async with asyncio.timeout(60):
        redis = Redis(unix_socket_path=str(fleet.socket))
        await redis.set("arq:job:garbage", b"\xff")
        await redis.zadd("decnet-reaper:-:jobs", {"garbage": 1})
        await redis.aclose()
        assert await logged.get() == "queue.job_refused"
        await fleet.kill_queue()
        assert await logged.get() == "queue.unreachable"
        await fleet.start_queue()
        assert await logged.get() == "queue.recovered"
        for name in ("a", "b"):
            await queue.enqueue([Delivery(name, 1, None, "deploy", name)])
            assert await handled.get() == name
            assert await logged.get() == "worker.job_crashed"
    assert not running.done()
    await queue.close()
    await worker.close()
    await running


async def test_a_sweep_that_raises_is_followed_by_the_next(fleet: Fleet) -> None:
    sweeps = asyncio.Semaphore(0)

    async def sweep() -> None:
        sweeps.release()
        raise RuntimeError("a sweep")

    worker = SweepCron(fleet.settings.redis, sweep, interval=1, outage=Outage("redis"))
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        for _ in range(2):
            await sweeps.acquire()
    await worker.close()
    await running


async def run_with_log(fleet: Fleet, daemon: str, stderr: int | None) -> asyncio.subprocess.Process:
    """A daemon that is ready, which its log can't tell; with its stderr closed where none is given."""
    closed = () if stderr is not None else ("sh", "-c", 'exec "$@" 2>&-', "sh")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(fleet.root / f"{daemon}.notify"))
        manager.settimeout(HANG_GUARD_S)
        process = await asyncio.create_subprocess_exec(
            *(*closed, *fleet.command(daemon)),
            env=fleet.environment | {"NOTIFY_SOCKET": manager.getsockname()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        while b"READY=1" not in await asyncio.to_thread(manager.recv, 4096):
            pass
    return process


@asynccontextmanager
async def daemons_logging_to(fleet: Fleet, stderr: int | None) -> AsyncIterator[None]:
    daemons = [await run_with_log(fleet, daemon, stderr) for daemon in ("worker", "reaper")]
    if stderr is not None:
        os.close(stderr)
    try:
        yield
        for daemon in daemons:
            assert daemon.returncode is None
            daemon.terminate()
            async with asyncio.timeout(60):
                assert await daemon.wait() == 0
    finally:
        for daemon in daemons:
            if daemon.returncode is None:
                daemon.kill()
                await daemon.wait()


async def outcomes(fleet: Fleet) -> list[Lifecycle]:
    async with fleet.client() as client:
        good = await client.deploy("decky-a", fleet.document("decky-a"))
        bad = await client.deploy("decky-b", {"services": {"decky-b": {"image": "no-command"}}})
        return [await client.wait(lifecycle_id, timeout=60) for lifecycle_id in (good, bad)]


async def test_a_log_whose_reader_is_gone_ends_nobody(fleet: Fleet) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with daemons_logging_to(fleet, writer):
        assert [row["status"] for row in await outcomes(fleet)] == ["succeeded", "failed"]


async def test_a_log_that_is_closed_ends_nobody(fleet: Fleet) -> None:
    async with daemons_logging_to(fleet, None):
        assert [row["status"] for row in await outcomes(fleet)] == ["succeeded", "failed"]


async def test_a_log_on_a_full_disk_ends_nobody(fleet: Fleet) -> None:
    async with daemons_logging_to(fleet, os.open("/dev/full", os.O_WRONLY)):
        assert [row["status"] for row in await outcomes(fleet)] == ["succeeded", "failed"]


async def test_a_log_whose_reader_is_stuck_is_waited_for_and_loses_no_line() -> None:
    async with running_fleet(max_jobs="50") as fleet:
        reader, writer = os.pipe()
        process = await run_with_log(fleet, "worker", writer)
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b" " * 4095 + b"\n")
        os.set_blocking(writer, True)
        os.close(writer)
        try:
            async with fleet.client() as client:
                names = [f"decky-{number:02}" for number in range(10)]
                ids = [await client.deploy(name, fleet.document(name)) for name in names]
                lines = asyncio.create_task(asyncio.to_thread(read_all, reader))
                for lifecycle_id in ids:
                    assert (await client.wait(lifecycle_id, timeout=60))["status"] == "succeeded"
            process.terminate()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        told = await lines
        assert [told.count(f'"lifecycle.succeeded", "lifecycle_id": "{row}"') for row in ids] == [1] * 10


def read_all(fd: int) -> str:
    with open(fd, "rb") as file:
        return file.read().decode()
