"""The two workers: `QueueWorker` runs operations, `SweepCron` is the reaper's cron."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from arq.cron import cron
from arq.worker import func

from worker.logging.events import emit
from worker.queue.connection import parse_dsn
from worker.queue.jobs import EXECUTE, SWEEP_QUEUE, queue_name, wake_list
from worker.queue.loop import Engine
from worker.queue.outage import Outage

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

_TICK_KEPT = 60.0
"""Seconds for which a tick that ran can't run again (arq's `keep_cronjob_progress`)."""
_BEAT_TIMEOUT = 60.0


class QueueWorker:
    """Calls `handler(lifecycle_id)` for each job of a host's queue, oldest first, `max_jobs` at a time.

    An outage of Redis ends nothing: running handlers finish, and the loop comes back by itself.
    `on_outage(reason)` is called once when Redis goes, `on_recovery(seconds)` once when it is back,
    `on_refused(job_id, reason)` once for each job that isn't one of ours. A handler that raises is logged
    (`worker.job_crashed`) and its job is done, as is the job of one that was cancelled: what becomes of the
    row is the store's affair.

    `job_timeout` is in seconds, and longer than any handler takes: 10 s after it another worker may pick the
    same job. Nothing is cut short here.
    Make one inside a running event loop. Raises `InvalidDSN`.
    """

    def __init__(
        self,
        dsn: str,
        handler: Callable[[str], Awaitable[None]],
        *,
        host_uuid: str | None = None,
        max_jobs: int = 10,
        job_timeout: float,
        on_outage: Callable[[str], None],
        on_recovery: Callable[[float], None],
        on_refused: Callable[[str, str], None],
    ) -> None:
        async def execute(_ctx: dict[Any, Any], lifecycle_id: str) -> None:
            await handler(lifecycle_id)

        self._engine = Engine(
            parse_dsn(dsn),
            queue_name(host_uuid),
            wake=wake_list(host_uuid),
            functions=[func(cast("WorkerCoroutine", execute), name=EXECUTE)],
            cron_jobs=[],
            max_jobs=max_jobs,
            job_timeout=job_timeout,
            deferred=False,
            keep=0,
            outage=Outage(on_outage, on_recovery),
            on_refused=on_refused,
        )

    async def run(self) -> None:
        """Work until `close`. Waits for Redis at the start too."""
        await _run(self._engine)

    @property
    def running(self) -> int:
        """How many handlers are running."""
        return len(self._engine.tasks)

    def stop_picking(self) -> None:
        """Take no more jobs. One that is being taken at this moment still runs."""
        self._engine.allow_pick_jobs = False

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109  # answers, instead of being cut off
        """Wait at most `timeout` seconds for the running handlers; whether all ended."""
        return await self._engine.drain(timeout)

    def cancel(self, lifecycle_id: str) -> bool:
        """Cancel the handlers that run for this row; whether there was one."""
        return self._engine.cancel(lifecycle_id, f"{lifecycle_id} was cancelled")

    def cancel_all(self) -> None:
        """Cancel all running handlers."""
        self._engine.cancel(None, "the worker is stopping")

    async def close(self) -> None:
        """End `run`, cancel what still runs and wait for it, clear the queue of what ended, disconnect."""
        await self._engine.close()


class SweepCron:
    """Calls `beat()` every `interval` seconds by arq's cron, on whichever of several workers is first.

    The grain is one second, the pace at least once a minute. A beat may come late or twice (an outage, a
    clock that was set), and none comes while Redis is away: who relies on it needs a clock of its own too.
    `on_outage` and `on_recovery` as for `QueueWorker`. Make one inside a running event loop.
    """

    def __init__(
        self,
        dsn: str,
        beat: Callable[[], Awaitable[None]],
        *,
        interval: float,
        on_outage: Callable[[str], None],
        on_recovery: Callable[[float], None],
    ) -> None:
        async def tick(_ctx: dict[Any, Any]) -> None:
            await beat()

        every = cron(
            cast("WorkerCoroutine", tick),
            name="beat",
            second=set(range(0, 60, max(1, round(interval)))),
            unique=True,
            timeout=_BEAT_TIMEOUT,
            keep_result=0,
        )
        self._engine = Engine(
            parse_dsn(dsn),
            SWEEP_QUEUE,
            wake=None,
            functions=[],
            cron_jobs=[every],
            max_jobs=10,
            job_timeout=_BEAT_TIMEOUT,
            deferred=True,
            keep=_TICK_KEPT,
            outage=Outage(on_outage, on_recovery),
            on_refused=_log_refused,
        )

    async def run(self) -> None:
        """Beat until `close`."""
        await _run(self._engine)

    async def close(self) -> None:
        """End `run`, cancel a beat that is under way and wait for it, disconnect."""
        await self._engine.close()


async def _run(engine: Engine) -> None:
    """Run the engine's loop in a task of its own, which `close` can wait for whoever cancels us."""
    engine.main_task = asyncio.create_task(engine.main())
    try:
        await asyncio.shield(engine.main_task)
    except asyncio.CancelledError:
        # In a task of its own: on Debian 12's Python 3.11.2 a timeout (redis-py's too) doesn't end as a
        # TimeoutError in one that is being cancelled (python/cpython issue 102780).
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(engine.close())
        raise


def _log_refused(job_id: str, reason: str) -> None:
    emit("queue.job_refused", job_id=job_id, reason=reason)
