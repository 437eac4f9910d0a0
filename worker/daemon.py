"""The worker as a daemon: picks jobs until it is told to stop, then lets its operations finish.

On SIGTERM or SIGINT it picks no more, waits for its operations for `stop_grace` seconds, and ends what is
left: those rows fail with "worker stopped during operation" and are accepted again as retries.
"""

import asyncio

from repo.base import BaseRepository
from repo.errors import StoreReplaced, StoreUnavailable
from repo.factory import repository_of
from worker.execution.executor import Executor
from worker.execution.resources import ensure_descriptors
from worker.liveness.errors import LocksReplaced
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.logging.emit import emit
from worker.queue import Outage, Queue, QueueWorker, StorePoll
from worker.runtimes.waiting import wait_for_runtime
from worker.service.presence import Keep, present
from worker.service.reload import reread
from worker.service.skeleton import Service
from worker.settings import WorkerSettings

# How often the store is asked for cancelled operations, in seconds; only while operations run.
_CANCEL_POLL_S = 0.5
# How often the locks are looked at while none runs.
_IDLE_S = 1.0
# How long what was cut short may take to end, in seconds.
_END_S = 30.0


async def run_worker(settings: WorkerSettings) -> None:
    """Run one worker until it is told to stop.

    Raises:
        SettingsError: `max_jobs` does not fit this machine.
        StoreUnavailable, QueueUnusable, RuntimeUnavailable, LocksUnusable: at the start; nothing was changed.
        StoreReplaced: another file is where the store was. What runs is ended with this process, and whoever
            starts it again has the new file used.
        LocksReplaced: the same of the lock directory. What runs is ended, and its rows with it.
    """
    ensure_descriptors(settings.max_jobs)
    runtime = await wait_for_runtime(settings)
    queue = Queue(settings.redis)
    here = asyncio.Event()
    here.set()
    async with (
        repository_of(settings) as repository,
        present(settings, "worker", here.set, here.clear) as keep_presence,
    ):
        queue.store = await repository.identify()
        await queue.refuse_others(settings.host_uuid)
        locks = DeckyLocks.for_daemon(settings)
        owner = Owner.mine(locks.directory.id)
        executor = Executor(repository, queue, locks, runtime, settings, owner)
        with locks.directory.joined("worker"):
            await _Worker(settings, repository, queue, executor, locks, here).run(
                owner, runtime.name, keep_presence
            )
        await queue.close()
    emit("worker.stopped", owner=str(owner))


class _Worker:
    """Picks jobs, executes them, and looks meanwhile for what was cancelled."""

    def __init__(
        self,
        settings: WorkerSettings,
        repository: BaseRepository,
        queue: Queue,
        executor: Executor,
        locks: DeckyLocks,
        here: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._here = here
        self._executor = executor
        self._locks = locks
        self._stopping = False
        self._redis = queue.name
        self._service = Service(self._reload)
        self._outage = Outage(queue.name)
        self._picker = QueueWorker(
            settings.redis,
            self._execute,
            host_uuid=settings.host_uuid,
            max_jobs=settings.max_jobs,
            # Longer than an operation and its roll-back can take: our own deadline rules.
            job_timeout=4 * settings.operation_timeout + 300,
            outage=self._outage,
            store=queue.store,
        )

        self._store_poll = StorePoll(repository, self._picker, settings.host_uuid)

    async def run(self, owner: Owner, runtime: str, keep_presence: Keep | None) -> None:
        """Work until told to stop.

        Args:
            owner: this life of this worker.
            runtime: its name, for the log.
            keep_presence: keeps the session that says that this host is there.

        Raises:
            StoreReplaced, LocksReplaced: it has to end.
        """
        async with self._service as service:
            emit(
                "worker.started",
                owner=str(owner),
                pid=owner.pid,
                runtime=runtime,
                max_jobs=self._settings.max_jobs,
                database=self._settings.database_name,
                redis=self._redis,
                host_uuid=self._settings.host_uuid,
            )
            service.supervise("queue", self._picker.run)
            service.supervise("store poll", self._store_poll.run)
            service.supervise("watch", self._watch)
            if keep_presence is not None:
                service.supervise("presence", keep_presence)
            await service.run(f"idle, runtime {runtime}")
            if not isinstance(service.lost, StoreReplaced):
                await self._finish(owner, 0.0 if service.lost else self._settings.stop_grace)
        await self._picker.close()

    async def _execute(self, lifecycle_id: str, decky_name: str) -> None:
        if not self._here.is_set():  # where others miss this host, what it begins is closed as lost
            await self._here.wait()
            if self._stopping:
                return
        try:
            await self._executor.execute(lifecycle_id, decky_name)
        except (StoreReplaced, LocksReplaced) as error:
            self._service.lose(error)
        except StoreUnavailable as error:  # the row is pending, and the reaper enqueues it again
            emit("store.unavailable", reason=str(error))

    async def _watch(self) -> None:
        """Look for what was cancelled, and whether the locks are still there, for ever."""
        while True:
            await asyncio.sleep(_CANCEL_POLL_S if self._executor.running else _IDLE_S)
            self._service.notifier.status(f"{len(self._executor.running)} running{self._outage.status}")
            self._locks.directory.check_same()
            try:
                await self._executor.end_cancelled()
            except StoreReplaced:
                raise
            except StoreUnavailable:
                continue  # logged where rows are written; asked again

    async def _finish(self, owner: Owner, grace: float) -> None:
        """Take no more jobs, and let what runs end; cut short what takes longer than the grace."""
        self._stopping = True
        self._here.set()
        self._picker.stop_picking()
        self._service.notifier.extend_timeout(grace + _END_S)
        emit("worker.stopping", owner=str(owner), running=len(self._executor.running))
        if not await self._picker.drain(grace):
            for lifecycle_id in self._executor.running:
                self._executor.cut_short(lifecycle_id, "interrupted")
            await self._picker.drain(_END_S)

    def _reload(self) -> str:
        self._settings = reread(self._settings)
        self._executor.reload(self._settings)
        return f"{len(self._executor.running)} running"
