"""An operation waits for what is short, and what it leaves behind is ended, also where it is cancelled."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from repo.base import BaseRepository, Claim, Deployed
from repo.factory import get_repository
from worker.execution.progress import Progress
from worker.execution.survivors import children_ended, end_survivors
from worker.execution.work import RowAtWork
from worker.liveness.holders import Hold, end_holder
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.locks import DeckyLock, DeckyLocks
from worker.queue import Queue
from worker.runtimes.base import Runtime
from worker.runtimes.command import CommandRuntime
from worker.runtimes.process import ProcessRuntime
from worker.settings import WorkerSettings

pytestmark = pytest.mark.anyio

DOCUMENT = {"services": {"decky-01": {"image": "none"}}}


class Leaving:
    """A runtime that leaves a process behind, and is cancelled in the moment in which it is done."""

    name = "leaving"

    @classmethod
    def of(cls, settings: WorkerSettings) -> "Leaving":
        return cls()

    async def check(self) -> str:
        return ""

    async def apply(self, decky_name: str, document: dict[str, Any], *, lock_fd: int, **_: Any) -> None:
        self.left = await asyncio.to_thread(
            subprocess.Popen, ["sleep", "600"], start_new_session=True, pass_fds=[lock_fd]
        )
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)

    async def remove(self, decky_name: str, **_: Any) -> None:
        pass


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BaseRepository]:
    async with get_repository(db_path=tmp_path / "store.db") as repository:
        yield repository


@pytest.fixture
async def claim(store: BaseRepository) -> Claim:
    lifecycle_id = await store.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
    claim = await store.claim_lifecycle(lifecycle_id, "host/boot/1/1/token/locks")
    assert claim is not None
    return claim


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[DeckyLock]:
    lock = DeckyLocks(LockDirectory(tmp_path)).try_lock("decky-01", None)
    assert lock is not None
    with lock:
        yield lock


@asynccontextmanager
async def at_work(
    claim: Claim, lock: DeckyLock, runtime: Runtime, directory: Path
) -> AsyncIterator[RowAtWork]:
    settings = WorkerSettings(state_dir=directory, runtime_dir=directory)
    queue = Queue(settings.redis)
    try:
        yield RowAtWork(claim, runtime, lock, settings, Progress(queue, None))
    finally:
        await queue.close()


async def test_a_cancel_while_survivors_are_being_ended_leaves_none(
    claim: Claim, lock: DeckyLock, tmp_path: Path
) -> None:
    runtime = Leaving()
    try:
        async with at_work(claim, lock, runtime, tmp_path) as work:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.create_task(work.apply(Deployed(DOCUMENT, ["decky-01"])))
        assert runtime.left.wait(timeout=30) == -signal.SIGKILL, "the row would end beside what is left of it"
    finally:
        runtime.left.kill()
        runtime.left.wait()


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """This process can open so many files and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as taken:
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count + 2, before[1]))
        opened: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        for descriptor in opened[count:]:
            taken.callback(os.close, descriptor)
        for descriptor in opened[:count]:
            os.close(descriptor)
        yield


class Short:
    """A runtime that the first time finds only so many descriptors."""

    def __init__(self, runtime: Runtime, free: int) -> None:
        self._runtime, self.name = runtime, runtime.name
        self._first: contextlib.AbstractContextManager[None] = free_descriptors(free)

    @classmethod
    def of(cls, settings: WorkerSettings) -> "Short":
        return cls(ProcessRuntime.of(settings), 0)

    async def check(self) -> str:
        return ""

    async def apply(self, decky_name: str, document: dict[str, Any], **given: Any) -> None:
        now, self._first = self._first, contextlib.nullcontext()
        with now:
            await self._runtime.apply(decky_name, document, **given)

    async def remove(self, decky_name: str, **given: Any) -> None:
        await self._runtime.remove(decky_name, **given)


@pytest.mark.parametrize(
    ("name", "free"),
    [
        pytest.param("command", 0, id="for the document"),
        pytest.param("command", 1, id="for the program's output"),
        pytest.param("process", 1, id="for a service"),
    ],
)
async def test_an_operation_waits_until_there_are_descriptors(
    claim: Claim, lock: DeckyLock, tmp_path: Path, name: str, free: int
) -> None:
    runtime = CommandRuntime(tmp_path, ["true"]) if name == "command" else ProcessRuntime(tmp_path)
    document = {"services": {"decky-01": {"image": "none", "command": ["sleep", "600"]}}}
    async with at_work(claim, lock, Short(runtime, free), tmp_path) as work:
        try:
            with capture_logs() as lines:
                await work.apply(Deployed(document, ["decky-01"]))
        finally:
            await runtime.remove("decky-01")
    postponed = [line["reason"] for line in lines if line["event"] == "lifecycle.postponed"]
    assert postponed == ["Too many open files; it is tried again"]


@contextmanager
def survivor(lock: DeckyLock) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock, and whose end is awaited here."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True, pass_fds=[lock.fd]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("free", [0, 2])
async def test_a_survivor_that_could_not_be_looked_at_is_ended_when_there_are_descriptors(
    claim: Claim, lock: DeckyLock, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    shortage: list[contextlib.AbstractContextManager[None]] = [free_descriptors(free)]

    def short_at_first(hold: Hold) -> bool:
        with shortage.pop() if shortage else contextlib.nullcontext():
            return end_holder(hold)

    monkeypatch.setattr("worker.execution.survivors.end_holder", short_at_first)
    with survivor(lock) as process:
        await end_survivors(claim.row, lock, children_ended())
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert lock.survivors() == []


class OneThreadShort(ThreadPoolExecutor):
    """The machine has no thread left for it, once."""

    short = True

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        if self.short:
            self.short = False
            raise RuntimeError("can't start new thread")
        return super().submit(*args, **kwargs)


async def test_a_survivor_is_ended_when_there_is_a_thread_to_look_for_it(
    claim: Claim, lock: DeckyLock
) -> None:
    asyncio.get_running_loop().set_default_executor(OneThreadShort())
    with survivor(lock) as process:
        await end_survivors(claim.row, lock, children_ended())
        assert process.wait(timeout=30) == -signal.SIGKILL


async def test_a_survivor_that_takes_long_to_go_is_told_once(
    claim: Claim, lock: DeckyLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Hold] = []

    def third_time(hold: Hold) -> bool:
        looks.append(hold)
        return len(looks) < 3 or end_holder(hold)

    monkeypatch.setattr("worker.execution.survivors.end_holder", third_time)
    with survivor(lock) as process, capture_logs() as lines:
        await end_survivors(claim.row, lock, children_ended())
    ended = [line["pids"] for line in lines if line["event"] == "lifecycle.survivors_ended"]
    assert ended == [[process.pid]]
