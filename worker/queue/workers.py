"""The two workers: `QueueWorker` runs operations, `SweepCron` is the reapers' cron."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from arq.cron import cron
from arq.worker import func

from repo.base import OPERATIONS, StoreIdentity
from worker.queue.dsn import parse_dsn
from worker.queue.jobs import key, sweep_function
from worker.queue.loop import Loop
from worker.queue.outage import Outage

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

_SWEEP_KEPT = 60.0
"""Seconds for which a sweep that ran can't run again (arq's `keep_cronjob_progress`)."""
_SWEEP_TIMEOUT = 60.0


class QueueWorker:
    """Calls `handler(lifecycle_id, decky_name)` for a host's jobs, oldest first, `max_jobs` at a time.

    An outage of Redis ends nothing: running handlers finish, and the loop comes back by itself. A job that
    isn't one of ours is logged (`queue.job_refused`) and dropped. A handler that raises is logged
    (`worker.job_crashed`) and its job is done, as is the job of one that was cancelled: what becomes of the
    row is the store's affair. The arq functions are the operations, so that what is in Redis explains itself;
    whoever handles a row believes the row.

    Make one inside a running event loop.

    Args:
        dsn: the queue's.
        handler: executes a row.
        host_uuid: whose queue; None is the master's.
        max_jobs: handlers at a time.
        job_timeout: seconds, and longer than any handler takes: 10 s after it another worker may pick the
            same job. Nothing is cut short here.
        outage: where it is reported that Redis is away, and back.
        store: the store that the queue must belong to; jobs of another store's queue are left alone.

    Raises:
        InvalidDSN: what is wrong with it.
    """

    def __init__(
        self,
        dsn: str,
        handler: Callable[[str, str], Awaitable[None]],
        *,
        host_uuid: str | None = None,
        max_jobs: int = 10,
        job_timeout: float,
        outage: Outage,
        store: StoreIdentity | None = None,
    ) -> None:
        async def execute(_ctx: dict[Any, Any], lifecycle_id: str, decky_name: str) -> None:
            await handler(lifecycle_id, decky_name)

        self._loop = Loop(
            parse_dsn(dsn),
            key(host_uuid, "jobs"),
            host_uuid=host_uuid,
            wake=key(host_uuid, "wake"),
            functions=[func(cast("WorkerCoroutine", execute), name=name) for name in OPERATIONS],
            cron_jobs=[],
            arguments=2,
            max_jobs=max_jobs,
            job_timeout=job_timeout,
            deferred=False,
            keep=0,
            outage=outage,
            store=store,
        )

    async def run(self) -> None:
        """Work until `close`. Waits for Redis at the start too."""
        await _run(self._loop)

    @property
    def running(self) -> int:
        """How many handlers are running."""
        return len(self._loop.tasks)

    @property
    def room(self) -> int:
        """How many more may run; none when stopping."""
        return self._loop.room

    async def silence(self, seconds: float) -> None:
        """Return at once when Redis can't be used, else when it has not answered for so many seconds."""
        await self._loop.silence(seconds)

    def start(self, operation: str, lifecycle_id: str, decky_name: str) -> bool:
        """Call the handler for a row that was not picked; False if there is no room, or it runs already."""
        return self._loop.start(operation, (lifecycle_id, decky_name))

    def stop_picking(self) -> None:
        """Take no more jobs. One that is being taken at this moment still runs."""
        self._loop.allow_pick_jobs = False

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109  # answers, instead of being cut off
        """Wait at most `timeout` seconds for the running handlers; whether all ended."""
        return await self._loop.drain(timeout)

    async def close(self) -> None:
        """End `run`, cancel what still runs and wait for it, clear the queue of what ended, disconnect."""
        await self._loop.close()


class SweepCron:
    """Calls `sweep()` every `interval` seconds by arq's cron, on whichever of a host's reapers is first.

    The grain is one second, the pace at least once a minute. A sweep may come late or twice (an outage, a
    clock that was set), and none comes while Redis is away: who relies on it needs a clock of its own too.
    Make one inside a running event loop. `host_uuid`, `outage` and `store` as for `QueueWorker`.
    """

    def __init__(
        self,
        dsn: str,
        sweep: Callable[[], Awaitable[None]],
        *,
        interval: float,
        host_uuid: str | None = None,
        outage: Outage,
        store: StoreIdentity | None = None,
    ) -> None:
        async def run_sweep(_ctx: dict[Any, Any]) -> None:
            await sweep()

        every = cron(
            cast("WorkerCoroutine", run_sweep),
            name=sweep_function(host_uuid),
            second=set(range(0, 60, max(1, round(interval)))),
            unique=True,
            timeout=_SWEEP_TIMEOUT,
            keep_result=0,
        )
        self._loop = Loop(
            parse_dsn(dsn),
            key(host_uuid, "sweep"),
            host_uuid=host_uuid,
            wake=None,
            functions=[],
            cron_jobs=[every],
            arguments=0,
            max_jobs=10,
            job_timeout=_SWEEP_TIMEOUT,
            deferred=True,
            keep=_SWEEP_KEPT,
            outage=outage,
            store=store,
        )

    async def run(self) -> None:
        """Sweep until `close`."""
        await _run(self._loop)

    async def close(self) -> None:
        """End `run`, cancel a sweep that is under way and wait for it, disconnect."""
        await self._loop.close()


async def _run(loop: Loop) -> None:
    """Run the loop in a task of its own, which `close` can wait for whoever cancels us."""
    loop.main_task = asyncio.create_task(loop.main())
    try:
        await asyncio.shield(loop.main_task)
    except asyncio.CancelledError:
        # In a task of its own: on Debian 12's Python 3.11.2 a timeout (redis-py's too) doesn't end as a
        # TimeoutError in one that is being cancelled (python/cpython issue 102780).
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(loop.close())
        raise
