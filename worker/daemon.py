"""The worker as a daemon: picks jobs until it is told to stop, then lets its operations finish.

On SIGTERM or SIGINT it picks no more, waits for its operations for `stop_grace` seconds, and ends what is
left: those rows fail with "worker stopped during operation" and are accepted again as retries.
"""

import asyncio
import signal
from collections.abc import Callable

from repo.errors import StoreReplaced, StoreUnavailable
from repo.factory import get_repository
from worker.execution.executor import STOPPED, Executor
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.logging.events import emit
from worker.queue import Outage, Queue, QueueWorker, StorePoll
from worker.reload import reread
from worker.runtimes.registry import choose_runtime
from worker.settings import WorkerSettings
from worker.systemd import Notifier

# How often the store is asked for cancelled operations, in seconds; only while operations run.
_CANCEL_POLL_S = 0.5


async def run_worker(settings: WorkerSettings) -> None:
    """Run one worker until it is told to stop.

    Raises:
        StoreUnavailable, QueueUnusable, RuntimeUnavailable, LocksUnusable: at the start; nothing was changed.
        StoreReplaced: another file is where the store was. What runs is ended with this process, and whoever
            starts it again has the new file used.
    """
    locks = DeckyLocks(settings.runtime_dir)
    runtime = await choose_runtime(settings)
    owner = Owner.mine()
    queue = Queue(settings.redis)
    async with get_repository(url=settings.database) as repository:
        queue.store = await repository.identify()
        await queue.refuse_others(settings.host_uuid)
        executor = Executor(repository, queue, locks, runtime, settings, owner)
        stop = asyncio.Event()
        replaced: list[StoreReplaced] = []

        def lose_store(error: StoreReplaced) -> None:
            replaced.append(error)
            stop.set()

        async def execute(lifecycle_id: str) -> None:
            try:
                await executor.execute(lifecycle_id)
            except StoreReplaced as error:
                lose_store(error)
            except StoreUnavailable as error:  # the row is pending, and the reaper rings again
                emit("store.unavailable", reason=str(error))

        outage = Outage(queue.name)
        worker = QueueWorker(
            settings.redis,
            execute,
            host_uuid=settings.host_uuid,
            max_jobs=settings.max_jobs,
            # Longer than an operation and its roll-back can take: our own deadline rules.
            job_timeout=4 * settings.operation_timeout + 300,
            outage=outage,
            store=queue.store,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        notifier = Notifier()

        def reload() -> None:
            nonlocal settings
            notifier.reloading()
            settings = reread(settings)
            executor.reload(settings)
            notifier.ready(f"{len(executor.running)} running")

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        emit(
            "worker.started",
            owner=str(owner),
            pid=owner.pid,
            runtime=runtime.name,
            max_jobs=settings.max_jobs,
            database=settings.database,
            redis=queue.name,
            host_uuid=settings.host_uuid,
        )
        notifier.ready(f"idle, runtime {runtime.name}")
        background = [
            asyncio.create_task(worker.run()),
            asyncio.create_task(StorePoll(repository, worker, settings.host_uuid).run()),
            asyncio.create_task(notifier.watchdog()),
            asyncio.create_task(_watch(executor, notifier, outage, lose_store)),
        ]
        await stop.wait()
        if not replaced:
            await _stop(settings, executor, worker, notifier, owner)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await worker.close()
        await queue.close()
    if replaced:
        raise replaced[0]
    emit("worker.stopped", owner=str(owner))


async def _watch(
    executor: Executor, notifier: Notifier, outage: Outage, lose_store: Callable[[StoreReplaced], None]
) -> None:
    while True:
        await asyncio.sleep(_CANCEL_POLL_S)
        notifier.status(f"{len(executor.running)} running{outage.status}")
        try:
            await executor.interrupt_cancelled()
        except StoreReplaced as error:
            lose_store(error)
        except StoreUnavailable:
            continue  # said where rows are written; asked again


async def _stop(
    settings: WorkerSettings, executor: Executor, worker: QueueWorker, notifier: Notifier, owner: Owner
) -> None:
    worker.stop_picking()
    notifier.stopping()
    notifier.extend_timeout(settings.stop_grace + 30)
    emit("worker.stopping", owner=str(owner), running=len(executor.running))
    if not await worker.drain(settings.stop_grace):
        for lifecycle_id in executor.running:
            executor.interrupt(lifecycle_id, STOPPED)
        await worker.drain(30)
