"""One delivery, from the claim to the truthful end of its row: lock, claim, run, end, release, ring the next.

The decky's lock is taken before the row is claimed and given up after the row has ended, so that a running
row whose lock is free is an orphan, with certainty.
"""

import asyncio
import time

from repo.base import CANCELLED, BaseRepository, Claim, Deployed, Ending, Outcome, Row
from repo.errors import StoreReplaced, StoreUnavailable
from worker.clock import seconds_since
from worker.documents.limits import InvalidDocument
from worker.execution.order import enqueue_next, take_lock_in_order
from worker.execution.progress import Progress
from worker.execution.work import RowAtWork, set_deadline
from worker.liveness.locks import DeckyLock, DeckyLocks, end_holder
from worker.liveness.owner import Owner
from worker.liveness.signals import Signals
from worker.logging.events import emit, emit_end
from worker.logging.unreported import Unreported
from worker.operations.registry import OPERATIONS
from worker.queue import Queue
from worker.runtimes.base import OperationFailed, Runtime
from worker.settings import WorkerSettings

STOPPED = "worker stopped during operation"

_OUTCOMES: dict[str, Outcome] = {CANCELLED: "cancelled", STOPPED: "interrupted"}


class Executor:
    """Executes the rows that are rung, one at a time per decky.

    Args:
        repository: the store.
        queue: to ring for the next row of a decky.
        locks: the decky locks of this host.
        runtime: what brings deckies up.
        settings: limits.
        owner: this life of this worker.
    """

    def __init__(
        self,
        repository: BaseRepository,
        queue: Queue,
        locks: DeckyLocks,
        runtime: Runtime,
        settings: WorkerSettings,
        owner: Owner,
    ) -> None:
        self._repository = repository
        self._queue = queue
        self._locks = locks
        self._runtime = runtime
        self._settings = settings
        self._owner = str(owner)
        self._ledger = Unreported(settings.runtime_dir)
        self._progress = Progress(queue, settings.host_uuid)
        self._notices = Signals(settings.runtime_dir)
        self._operations: dict[str, asyncio.Task[Deployed | None]] = {}
        self._cut_short: dict[str, str] = {}

    def reload(self, settings: WorkerSettings) -> None:
        """Take over limits that have changed; what runs keeps those that it began with."""
        self._settings = settings

    @property
    def running(self) -> list[str]:
        """Ids of the rows whose operations run now."""
        return list(self._operations)

    def interrupt(self, lifecycle_id: str, reason: str) -> None:
        """End a running operation; its row fails with `reason` once its processes are gone."""
        if (operation := self._operations.get(lifecycle_id)) and lifecycle_id not in self._cut_short:
            self._cut_short[lifecycle_id] = reason
            operation.cancel()

    async def interrupt_cancelled(self) -> None:
        """End the operations that somebody asked to cancel."""
        if self._operations:
            for lifecycle_id in await self._repository.find_cancelled(self._owner):
                self.interrupt(lifecycle_id, CANCELLED)

    async def execute(self, lifecycle_id: str) -> None:
        """Execute one delivery. A duplicate, or one whose turn has not come, changes nothing.

        Raises:
            StoreUnavailable: before the claim; the row stays pending, and the reaper rings again.
            StoreReplaced: at any time.
        """
        row = await self._repository.get_lifecycle(lifecycle_id)
        if row is None:
            emit("lifecycle.unknown", lifecycle_id=lifecycle_id)
            return
        if row["status"] != "pending":
            return
        lock = await take_lock_in_order(self._repository, self._locks, row)
        if lock is None:
            return  # whoever holds it rings for the decky's next row
        more = True
        with lock:
            # Before the claim, so that a worker that hangs right after it has a deadline too.
            set_deadline(lock, lifecycle_id, self._owner, self._settings.operation_timeout)
            self._notices.at_work(self._owner)
            claim = await self._repository.claim_lifecycle(lifecycle_id, self._owner)
            if claim is not None:
                more = await self._run(claim, lock)
        if more:
            await enqueue_next(self._repository, self._queue, row["decky_name"], row["host_uuid"])

    async def _run(self, claim: Claim, lock: DeckyLock) -> bool:
        """Run an operation to the end of its row; whether the decky may have another open row."""
        row = claim.row
        waited = seconds_since(row["started_at"])
        emit(
            "lifecycle.running",
            row,
            owner=self._owner,
            started_at=row["started_at"],
            claimed_at=row["claimed_at"],
            queue_wait_s=waited,
        )
        begun = time.monotonic()
        work = RowAtWork(claim, self._runtime, lock, self._settings.operation_timeout, self._progress)
        operation = asyncio.create_task(OPERATIONS[row["operation"]].perform(work))
        self._operations[row["id"]] = operation
        try:
            await asyncio.wait({operation})
        finally:
            del self._operations[row["id"]]
            self._progress.over(row["id"])
        cut_short = self._cut_short.pop(row["id"], None)
        if operation.cancelled():
            return await self._end(row, lock, waited, begun, error=cut_short or STOPPED)
        if (error := operation.exception()) is not None:
            return await self._end(row, lock, waited, begun, error=_reason(error))
        return await self._end(row, lock, waited, begun, deployed=operation.result())

    async def _end(
        self,
        row: Row,
        lock: DeckyLock,
        waited: float,
        begun: float,
        *,
        error: str | None = None,
        deployed: Deployed | None = None,
    ) -> bool:
        if error is not None:
            await self._end_survivors(row, lock)
        status = "succeeded" if error is None else "failed"
        again = error == STOPPED and row["attempt"] < self._settings.max_attempts
        outcome: Outcome = "succeeded" if error is None else _OUTCOMES.get(error, "failed")
        self._ledger.begin(row["id"], outcome, error)
        ending = await self._write_end(row, outcome, error, deployed, again)
        if ending.applied and ending.outcome is not None:
            emit_end(
                row,
                ending.outcome,
                owner=self._owner,
                runtime=self._runtime.name,
                queue_wait_s=waited,
                duration_s=round(time.monotonic() - begun, 3),
                error=ending.error,
                retry_id=ending.retry_id,
            )
            tell_retry(row, ending)
        else:
            emit("lifecycle.late_write_refused", row, owner=self._owner, status=status)
        self._ledger.told(row["id"])
        return ending.more

    async def _end_survivors(self, row: Row, lock: DeckyLock) -> None:
        # The runtime ends what it started; this is for what slipped away from it with the lock in hand.
        while pids := lock.survivors():
            ended = [pid for pid in pids if end_holder(self._locks, row["decky_name"], row["host_uuid"], pid)]
            if ended:
                emit("lifecycle.survivors_ended", row, pids=ended)
            await asyncio.sleep(0.02)

    async def _write_end(
        self, row: Row, outcome: Outcome, error: str | None, deployed: Deployed | None, again: bool
    ) -> Ending:
        pause, told = 0.1, False
        while True:
            try:
                return await self._repository.end_lifecycle(
                    row["id"],
                    outcome=outcome,
                    owner=self._owner,
                    error=error,
                    deployed=deployed,
                    undeploy=outcome == "succeeded" and deployed is None,
                    retry=again,
                )
            except StoreReplaced:
                raise  # no later try can reach the row
            except StoreUnavailable as unavailable:
                # The lock is kept meanwhile, so the row still tells the truth: somebody is at work on it.
                if not told:
                    emit("store.unavailable", reason=str(unavailable))
                told = True
                await asyncio.sleep(pause)
                pause = min(2.0, pause * 2)


def tell_retry(row: Row, ending: Ending) -> None:
    """Log that a retry of this row was accepted, if one was."""
    if ending.retry_id is not None:
        retry: Row = {**row, "id": ending.retry_id, "attempt": row["attempt"] + 1, "retry_of": row["id"]}
        emit("lifecycle.accepted", retry, started_at=ending.retry_at)


def _reason(error: BaseException) -> str:
    if isinstance(error, OperationFailed | InvalidDocument):
        return str(error)[-2000:]
    return f"{type(error).__name__}: {error}"[:2000]
