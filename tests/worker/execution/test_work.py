"""What an operation leaves behind is ended, also where it is cancelled in that very moment."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from repo.base import BaseRepository, Deployed
from repo.factory import get_repository
from worker.execution.progress import Progress
from worker.execution.work import RowAtWork
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.locks import DeckyLocks
from worker.queue import Queue
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


async def test_a_cancel_while_survivors_are_being_ended_leaves_none(
    store: BaseRepository, tmp_path: Path
) -> None:
    lifecycle_id = await store.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
    lock = DeckyLocks(LockDirectory(tmp_path)).try_lock("decky-01", None)
    claim = await store.claim_lifecycle(lifecycle_id, "host/boot/1/1/token/locks")
    assert lock is not None
    assert claim is not None
    settings = WorkerSettings(state_dir=tmp_path, runtime_dir=tmp_path)
    queue, runtime = Queue(settings.redis), Leaving()
    try:
        work = RowAtWork(claim, runtime, lock, settings, Progress(queue, None))
        with lock, pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work.apply(Deployed(DOCUMENT, ["decky-01"])))
        assert runtime.left.wait(timeout=30) == -signal.SIGKILL, "the row would end beside what is left of it"
    finally:
        runtime.left.kill()
        runtime.left.wait()
        await queue.close()
