"""The skeleton of a daemon: no task ends silently, and the watchdog knows."""

import asyncio
import os
import selectors
import signal
import socket
from collections.abc import MutableMapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Never

import pytest
import structlog

from repo.errors import StoreReplaced
from worker.liveness.errors import LocksReplaced
from worker.service.skeleton import Service

pytestmark = pytest.mark.anyio


@pytest.fixture
def logged() -> asyncio.Queue[dict[str, Any]]:
    """What is logged, as it is logged."""
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def take(_logger: object, _method: str, line: MutableMapping[str, Any]) -> Never:
        lines.put_nowait(dict(line))
        raise structlog.DropEvent

    structlog.configure(processors=[take])
    return lines


@pytest.mark.parametrize(
    "error", [RuntimeError("nobody foresaw it"), OSError(24, "Too many open files"), None]
)
async def test_a_task_that_ends_is_logged_and_started_again(
    logged: asyncio.Queue[dict[str, Any]], error: Exception | None
) -> None:
    starts = asyncio.Semaphore(0)

    async def work() -> None:
        starts.release()
        if error is not None:
            raise error

    async with asyncio.timeout(60), Service(lambda: "") as service:
        service.supervise("deaths", work)
        for _ in range(2):
            await starts.acquire()
            line = await logged.get()
            assert (line["event"], line["task"]) == ("daemon.task_failed", "deaths")
            assert str(error or "it ended, and nobody asked it to") in line["reason"]


async def test_a_task_that_fails_leaves_the_others_alone(logged: asyncio.Queue[dict[str, Any]]) -> None:
    ended = asyncio.Event()

    async def fail() -> None:
        raise RuntimeError

    async def go_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.timeout(60), Service(lambda: "") as service:
        service.supervise("good", go_on)
        service.supervise("bad", fail)
        await logged.get()
        await logged.get()
        assert not ended.is_set()
    assert ended.is_set()


@pytest.mark.parametrize("lost", [StoreReplaced("the store"), LocksReplaced("the locks")])
async def test_a_daemon_that_lost_what_it_stands_on_ends_with_that(lost: Exception) -> None:
    async def work() -> None:
        raise lost

    async def daemon() -> None:
        async with Service(lambda: "") as service:
            service.supervise("watch", work)
            await service.run("ready")

    with pytest.raises(type(lost), match=str(lost)):
        await asyncio.wait_for(daemon(), 60)


async def test_the_watchdog_starves_while_a_task_is_unwell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: asyncio.Queue[dict[str, Any]]
) -> None:
    fail, failing = asyncio.Event(), asyncio.Semaphore(0)

    async def work() -> None:
        await fail.wait()
        failing.release()
        raise RuntimeError

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60), Service(lambda: "") as service:
            service.supervise("sweep", work)
            running = asyncio.create_task(service.run("ready"))
            for _ in range(4):
                message = await loop.sock_recv(manager, 4096)
            assert message == b"WATCHDOG=1"
            fail.set()
            await failing.acquire()
            await logged.get()
            sent = []
            for _ in range(3):  # through which it would be fed a hundred times
                await failing.acquire()
            while True:
                try:
                    sent.append(manager.recv(4096))
                except BlockingIOError:
                    break
            assert len(sent) <= 2, "what was under way when the task fell ill"
            service.stop.set()
            await running


class Skipping(selectors.DefaultSelector):
    """Of an event loop whose clock goes on at once where it would wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


@pytest.mark.parametrize("fails_after", [0.1, 7.4, 14.9, 29.9])
def test_a_task_that_fails_once_ends_no_daemon_of_ours(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: asyncio.Queue[dict[str, Any]],
    fails_after: float,
) -> None:
    clock = Skipping()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    fed: list[float] = []

    async def work() -> None:
        if not logged.qsize():
            await asyncio.sleep(fails_after)
            raise RuntimeError
        await asyncio.Event().wait()

    async def daemon() -> None:
        manager.bind(str(tmp_path / "notify"))
        loop.add_reader(
            manager, lambda: fed.append(loop.time()) if manager.recv(99) == b"WATCHDOG=1" else None
        )
        async with Service(lambda: "") as service:
            service.supervise("sweep", work)
            loop.call_later(120, service.stop.set)
            await service.run("ready")
        loop.remove_reader(manager)

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")  # as in our units
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        runner.run(daemon())
    assert logged.qsize() == 1
    assert max(later - earlier for earlier, later in pairwise(fed)) < 30


async def test_a_reload_that_fails_keeps_the_daemon(logged: asyncio.Queue[dict[str, Any]]) -> None:
    def reload() -> str:
        raise RuntimeError("no such settings")

    async with asyncio.timeout(60), Service(reload) as service:
        running = asyncio.create_task(service.run("ready"))
        os.kill(os.getpid(), signal.SIGHUP)
        assert (await logged.get())["event"] == "daemon.reload_failed"
        os.kill(os.getpid(), signal.SIGTERM)
        await running
