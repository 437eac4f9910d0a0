"""One delivery, from the claim to the truthful end of its row: lock, claim, run, end, release, next.

The decky's lock is taken before the row is claimed and given up after the row has ended, so that a running
row whose lock is free is an orphan, with certainty.
"""

import asyncio
import time
from contextlib import suppress
from typing import Final, Literal

from repo.base import CANCELLED, BaseRepository, Claim, Deployed, Ending, Lifecycle, Outcome
from repo.errors import StoreReplaced, StoreUnavailable
from worker.clock import seconds_since
from worker.documents.limits import InvalidDocument
from worker.execution.order import enqueue_next, take_lock_in_order
from worker.execution.progress import Progress
from worker.execution.work import RowAtWork, set_deadline
from worker.liveness.errors import LocksUnusable
from worker.liveness.locks import DeckyLock, DeckyLocks
from worker.liveness.owner import Owner
from worker.liveness.signals import Signals
from worker.logging.emit import emit, emit_end
from worker.logging.unreported import Unreported
from worker.operations.registry import OPERATIONS
from worker.queue import Queue
from worker.runtimes.base import OperationFailed, OperationTimedOut, Runtime
from worker.settings import WorkerSettings

CutShort = Literal["cancelled", "interrupted"]

_REASONS: Final[dict[CutShort, str]] = {
    "cancelled": CANCELLED,
    "interrupted": "worker stopped during operation",
}


class Executor:
    """Executes the rows that are delivered, one at a time per decky.

    Args:
        repository: the store.
        queue: to enqueue the next row of a decky.
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
        self._unreported = Unreported(locks.directory)
        self._progress = Progress(queue, settings.host_uuid)
        self._signals = Signals(settings.runtime_dir)
        self._operations: dict[str, asyncio.Task[Deployed | None]] = {}
        self._cut_short: dict[str, CutShort] = {}

    def reload(self, settings: WorkerSettings) -> None:
        """Take over limits that have changed; what runs keeps those that it began with."""
        self._settings = settings

    @property
    def running(self) -> list[str]:
        """Ids of the rows whose operations run now."""
        return list(self._operations)

    def cut_short(self, lifecycle_id: str, outcome: CutShort) -> None:
        """End a running operation; its row ends with this outcome once its processes are gone."""
        if (operation := self._operations.get(lifecycle_id)) and lifecycle_id not in self._cut_short:
            self._cut_short[lifecycle_id] = outcome
            operation.cancel()

    async def end_cancelled(self) -> None:
        """End the operations that somebody asked to cancel."""
        if self._operations:
            for lifecycle_id in await self._repository.find_cancelled(self._owner):
                self.cut_short(lifecycle_id, "cancelled")

    async def execute(self, lifecycle_id: str, decky_name: str) -> None:
        """Execute one delivery. A duplicate, or one whose turn has not come, changes nothing.

        Args:
            lifecycle_id: the row.
            decky_name: its decky, as far as the queue knows.

        Raises:
            StoreUnavailable: before the claim; the row stays pending, and the reaper enqueues it again.
            StoreReplaced, LocksReplaced: the worker has to end.
        """
        decky = decky_name, self._settings.host_uuid
        try:
            lock = await take_lock_in_order(self._repository, self._locks, *decky)
        except LocksUnusable as error:
            if (row := await self._known(lifecycle_id, decky)) is not None and row["status"] == "pending":
                emit("lifecycle.postponed", row, reason=str(error))
            return
        if lock is None:
            return  # whoever holds it enqueues the decky's next row
        more = True
        with lock:
            self._locks.directory.check_same()
            # Before the claim, so that a worker that hangs right after it has a deadline too.
            set_deadline(lock, lifecycle_id, self._owner, self._settings.operation_timeout)
            self._signals.at_work(self._owner)
            claim = await self._repository.claim_lifecycle(lifecycle_id, self._owner, decky=decky)
            if claim is not None:
                more = await self._run(claim, lock)
        if claim is None and await self._known(lifecycle_id, decky) is None:
            return
        if more:
            await enqueue_next(self._repository, self._queue, *decky)

    async def _known(self, lifecycle_id: str, decky: tuple[str, str | None]) -> Lifecycle | None:
        row = await self._repository.get_lifecycle(lifecycle_id)
        if row is not None and (row["decky_name"], row["host_uuid"]) == decky:
            return row
        emit("lifecycle.unknown", lifecycle_id=lifecycle_id)
        return None

    async def _run(self, claim: Claim, lock: DeckyLock) -> bool:
        """Run an operation to the end of its row; whether the decky may have another open row."""
        row = claim.row
        begun = time.monotonic()
        work = RowAtWork(claim, self._runtime, lock, self._settings, self._progress)
        operation = asyncio.create_task(OPERATIONS[row["operation"]].perform(work))
        self._operations[row["id"]] = operation
        try:
            await asyncio.sleep(0)  # it begins, and its line is written while it goes on
            emit(
                "lifecycle.running",
                row,
                owner=self._owner,
                started_at=row["started_at"],
                claimed_at=row["claimed_at"],
                queue_wait_s=seconds_since(row["started_at"], row["claimed_at"]),
            )
            await asyncio.wait({operation})
        finally:
            # We are cancelled ourselves: the lock is held until its processes are gone.
            if operation.cancel():
                await asyncio.wait({operation})
            del self._operations[row["id"]]
            self._progress.end(row["id"])
        cut_short = self._cut_short.pop(row["id"], "interrupted")
        error, deployed = None, None
        if operation.cancelled():
            outcome: Outcome = cut_short
            error = _REASONS[cut_short]
        elif (raised := operation.exception()) is not None:
            outcome, error = _outcome_of(raised), _reason(raised)
        else:
            outcome, deployed = "succeeded", operation.result()
        ending = await self._write_end(row, lock, outcome, error, deployed)
        if ending.applied:
            log_end(row, ending, runtime=self._runtime.name, duration_s=round(time.monotonic() - begun, 3))
        else:
            status = "succeeded" if outcome == "succeeded" else "failed"
            emit("lifecycle.late_write_refused", row, owner=self._owner, status=status, refused_error=error)
        self._unreported.done(row["id"])
        return ending.more

    async def _write_end(
        self, row: Lifecycle, lock: DeckyLock, outcome: Outcome, error: str | None, deployed: Deployed | None
    ) -> Ending:
        pause, logged = 0.1, False
        while True:
            # Each try gets its time anew, or the reaper would end a worker that only waits for the store.
            with suppress(OSError):  # the lock file may be on the same full disk
                set_deadline(lock, row["id"], self._owner, self._settings.operation_timeout + pause)
            self._unreported.begin(row["id"], outcome)
            try:
                return await self._repository.end_lifecycle(
                    row["id"],
                    outcome=outcome,
                    owner=self._owner,
                    error=error,
                    deployed=deployed,
                    undeploy=outcome == "succeeded" and deployed is None,
                    retry=outcome == "interrupted" and row["attempt"] < self._settings.max_attempts,
                )
            except StoreUnavailable as unavailable:
                self._unreported.done(row["id"])  # nothing was written
                if isinstance(unavailable, StoreReplaced):
                    raise  # no later try can reach the row
                # The lock is kept meanwhile, so the row still tells the truth: somebody is at work on it.
                if not logged:
                    emit("store.unavailable", reason=str(unavailable))
                logged = True
                await asyncio.sleep(pause)
                pause = min(2.0, pause * 2)


def log_end(
    row: Lifecycle, ending: Ending, *, runtime: str | None = None, duration_s: float | None = None
) -> None:
    """Log how a row ended, and that a retry was accepted, if one was; arguments as for `emit_end`."""
    emit_end(
        row,
        ending.outcome or "failed",
        runtime=runtime,
        duration_s=duration_s,
        error=ending.error,
        retry_id=ending.retry_id,
    )
    if ending.retry_id is not None:
        retry: Lifecycle = {
            **row,
            "id": ending.retry_id,
            "attempt": row["attempt"] + 1,
            "retry_of": row["id"],
        }
        emit("lifecycle.accepted", retry, started_at=ending.retry_at)


def _outcome_of(error: BaseException) -> Outcome:
    # A roll-back wraps the failure that called for it.
    timed_out = isinstance(error, OperationTimedOut) or isinstance(error.__cause__, OperationTimedOut)
    return "timed_out" if timed_out else "failed"


def _reason(error: BaseException) -> str:
    if isinstance(error, OperationFailed | InvalidDocument):
        return str(error)[-2000:]
    return f"{type(error).__name__}: {error}"[:2000]
