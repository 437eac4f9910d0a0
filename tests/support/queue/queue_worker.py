"""A worker on a real queue whose handlers report to the test, and what tests say to the queue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from repo.base import StoreIdentity
from worker.queue import Delivery, Outage, Queue, QueueWorker

JOBS = "decnet-reaper:-:jobs"
SECRET = "hunter2"  # noqa: S105  # looked for in every message
HANG_GUARD = 30


class Heard(Outage):
    """What a daemon would log of an outage, for a test to await."""

    def __init__(self) -> None:
        super().__init__("redis")
        self.outages: asyncio.Queue[str] = asyncio.Queue()
        self.recoveries: asyncio.Queue[float] = asyncio.Queue()

    def failed(self, use: str, reason: str) -> None:
        began = self.since is None
        super().failed(use, reason)
        if began:
            self.outages.put_nowait(reason)

    def worked(self, use: str) -> None:
        lasted = self.since is not None
        super().worked(use)
        if lasted and self.since is None:
            self.recoveries.put_nowait(1.0)


class Worked:
    """A worker whose handlers report that they start, then wait to be let go."""

    def __init__(
        self,
        dsn: str,
        *,
        max_jobs: int = 10,
        host_uuid: str | None = None,
        store: StoreIdentity | None = None,
    ) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.heard = Heard()
        self.outages, self.recoveries = self.heard.outages, self.heard.recoveries
        self.gate = asyncio.Event()
        self.gate.set()
        self.worker = QueueWorker(
            dsn,
            self._handle,
            host_uuid=host_uuid,
            max_jobs=max_jobs,
            job_timeout=300,
            outage=self.heard,
            store=store,
        )

    async def _handle(self, lifecycle_id: str, _decky_name: str) -> None:
        self.started.put_nowait(lifecycle_id)
        if lifecycle_id == "crashes":
            raise RuntimeError("a handler's own mistake")
        await self.gate.wait()
        self.ended.put_nowait(lifecycle_id)


@asynccontextmanager
async def working(
    dsn: str, *, max_jobs: int = 10, host_uuid: str | None = None, store: StoreIdentity | None = None
) -> AsyncIterator[Worked]:
    worked = Worked(dsn, max_jobs=max_jobs, host_uuid=host_uuid, store=store)
    run = asyncio.create_task(worked.worker.run())
    try:
        async with asyncio.timeout(HANG_GUARD):
            yield worked
    finally:
        await worked.worker.close()
        await run


@asynccontextmanager
async def enqueueing(dsn: str, store: StoreIdentity | None = None) -> AsyncIterator[Queue]:
    queue = Queue(dsn)
    queue.store = store
    try:
        async with asyncio.timeout(HANG_GUARD):
            yield queue
    finally:
        await queue.close()


def deliveries(*lifecycle_ids: str, number: int = 1, host_uuid: str | None = None) -> list[Delivery]:
    return [Delivery(lifecycle_id, number, host_uuid, "deploy", "decky-01") for lifecycle_id in lifecycle_ids]


async def take(queue: "asyncio.Queue[str]", count: int) -> list[str]:
    return [await queue.get() for _ in range(count)]


async def emptied(queue: Queue, host_uuid: str | None = None) -> None:
    """Return when the queue is empty."""
    while await queue.depth(host_uuid):
        await asyncio.sleep(0.01)


def body(function: str = "deploy", args: object = ("ok",), kwargs: object = None) -> bytes:
    return msgspec.json.encode({"t": None, "f": function, "a": args, "k": kwargs or {}, "et": 1})
