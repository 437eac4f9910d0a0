"""The two workers: `QueueWorker` runs operations, `SweepCron` is the reapers' cron."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from arq.cron import cron
from arq.worker import func

from repo.base import OPERATIONS, StoreIdentity
from worker.queue.jobs import sweep_function
from worker.queue.loop import Loop
from worker.queue.outage import Outage

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

_SWEEP_TIMEOUT = 60.0


class QueueWorker(Loop):
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

        super().__init__(
            dsn,
            host_uuid=host_uuid,
            functions=[func(cast("WorkerCoroutine", execute), name=name) for name in OPERATIONS],
            max_jobs=max_jobs,
            job_timeout=job_timeout,
            outage=outage,
            store=store,
        )


class SweepCron(Loop):
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
        super().__init__(
            dsn,
            host_uuid=host_uuid,
            cron_jobs=[every],
            job_timeout=_SWEEP_TIMEOUT,
            outage=outage,
            store=store,
        )
