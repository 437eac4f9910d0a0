"""The sweep: looks at every open row, asks the rules, does what they say. Repeating it is harmless."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from reaper.settings import ReaperSettings
from reaper.sweep.ages import Ages
from reaper.sweep.assess import Assessment, Assessor, SweepContext
from reaper.sweep.report import Report
from reaper.sweep.rules import Action, Do, Facts, Policy
from reaper.sweep.unreported import tell_untold
from repo.base import BaseRepository, Row
from worker.clock import now, seconds_since
from worker.execution.executor import tell_retry
from worker.execution.order import enqueue_next
from worker.liveness.locks import DeckyLock, DeckyLocks, end_holder
from worker.liveness.owner import Owner
from worker.logging.events import emit, emit_end
from worker.logging.unreported import Unreported
from worker.queue import Delivery, DeliveryState, Outage, Queue, QueueUnavailable

# Rows that are closed side by side: enough to share the store's transactions, few enough for descriptors.
_AT_ONCE = 200
# How long a killed process may take to let go of a lock before it is left to the next pass, in seconds.
_LET_GO_S = 2.0
_LOOK_EVERY_S = 0.02
_SURVIVORS_EVERY_S = 0.1
_PRUNE_EVERY_S = 60.0


class Sweeper:
    """One reaper's eye on the store.

    Args:
        repository, queue, locks: what it looks at.
        settings: limits.
        ages: injected by tests that turn the clock.
        outage: where it is reported that the queue's states can't be read, and that they can again.
    """

    def __init__(
        self,
        repository: BaseRepository,
        queue: Queue,
        locks: DeckyLocks,
        settings: ReaperSettings,
        ages: Ages | None = None,
        outage: Outage | None = None,
    ) -> None:
        self._repository = repository
        self._queue = queue
        self._locks = locks
        self.reload(settings)
        self._assessor = Assessor(locks, settings, Ages() if ages is None else ages)
        self._ledger = Unreported(settings.runtime_dir)
        self._queue_lost = True
        self._outage = outage
        self._warned: set[str] = set()
        self._pruned_at = -_PRUNE_EVERY_S

    def reload(self, settings: ReaperSettings) -> None:
        """Take over limits that have changed, from the next pass on."""
        self._settings = settings
        self._policy = Policy(
            max_attempts=settings.max_attempts,
            pending_ttl=settings.pending_ttl,
            stale_after=settings.stale_after,
            overdue_grace=settings.overdue_grace,
        )

    async def run(
        self,
        trigger: str,
        *,
        with_queue: bool = True,
        older_than: float | None = None,
        run: str | None = None,
        died_of: str = "",
        dry_run: bool = False,
    ) -> Report:
        """One pass.

        Args:
            trigger: what caused it, for the log; "start" marks a reaper's first pass.
            with_queue: False applies only the rules that don't need Redis.
            older_than: give up pending rows, and rows of other hosts, that are older than this many seconds.
            run: look only at the rows of this run of a unit, which has ended.
            died_of: what the service manager says that it died of.
            dry_run: decide, but do nothing.

        Raises:
            StoreUnavailable: the store can't be read or written; the next pass tries again.
        """
        begun = time.monotonic()
        policy = self._policy
        if older_than is not None:
            policy = replace(policy, pending_ttl=older_than, stale_after=older_than)
        if not dry_run:
            await tell_untold(self._repository, self._settings.runtime_dir)
        everything = await self._repository.list_open_lifecycles()
        rows = [row for row in everything if run is None or _run_of(row) == run]
        first = _first_in_line(everything)
        states = await self._states([row for row in rows if row["id"] in first]) if with_queue else None
        queue_up = states is not None if with_queue else None
        report = Report(rows, Counter(), [], set(), queue_up)

        during = SweepContext(
            policy, trigger == "start", died_of, first, states, self._queue_lost, report.owners
        )
        for start in range(0, len(rows), _AT_ONCE):
            judged = self._assessor.assess_all(rows[start : start + _AT_ONCE], during)
            await asyncio.gather(
                *(self._handle(row, verdict, during, report, dry_run=dry_run) for row, verdict in judged)
            )
        if states is not None:
            self._queue_lost = False
        if not dry_run:
            await self._prune(report)
            self._assessor.keep(everything)
            self._warned.intersection_update(row["id"] for row in everything)
        report.tell(trigger, time.monotonic() - begun)
        return report

    async def _states(self, rows: list[Row]) -> dict[str, DeliveryState] | None:
        pending = [row for row in rows if row["status"] == "pending"]
        try:
            self._queue_lost |= await self._queue.was_emptied(self._settings.host_uuid)
            deliveries = [Delivery.latest(row) for row in pending]
            states = await self._queue.states(deliveries) if deliveries else []
        except QueueUnavailable as error:
            self._queue_lost = True
            if self._outage:
                self._outage.failed("states", str(error))
            return None
        if self._outage:
            self._outage.worked("states")
        return {row["id"]: state for row, state in zip(pending, states, strict=True)}

    async def _handle(
        self, row: Row, verdict: Assessment, during: SweepContext, report: Report, *, dry_run: bool
    ) -> None:
        action, facts, lock = verdict
        if action.do in {Do.END_SURVIVORS, Do.END_OWNER} and not dry_run:
            lock = await self._end_processes(row, action, report)
            if lock is not None:
                action, facts, lock = self._assessor.assess_running(row, during, lock)
        with lock or contextlib.nullcontext():
            await self._apply(row, action, facts, report, dry_run=dry_run)
        if lock is not None and not dry_run:
            # A job that found the lock in our hands has gone away; its row would wait for its next ring.
            await enqueue_next(self._repository, self._queue, row["decky_name"], row["host_uuid"])

    async def _end_processes(self, row: Row, action: Action, report: Report) -> DeckyLock | None:
        owner = Owner.parse(row["owner"])
        if owner is not None and action.do is Do.END_OWNER:
            self._assessor.timed_out(row, self._settings.operation_timeout)
            owner.kill()
            report.owners.discard(owner)
            report.counts["ended"] += 1
        decky = row["decky_name"], row["host_uuid"]
        give_up = time.monotonic() + _LET_GO_S
        while (lock := self._locks.try_lock(*decky)) is None and time.monotonic() < give_up:
            if owner is not None and not owner.alive:
                survivors = self._locks.survivors(*decky, owner.pid, max_age=_SURVIVORS_EVERY_S)
                if ended := [pid for pid in survivors if end_holder(self._locks, *decky, pid)]:
                    report.counts["ended"] += len(ended)
                    emit("lifecycle.survivors_ended", row, pids=ended)
            await asyncio.sleep(_LOOK_EVERY_S)
        return lock

    async def _apply(self, row: Row, action: Action, facts: Facts, report: Report, *, dry_run: bool) -> None:
        if action.do is Do.LEAVE:
            return
        report.actions.append((row, action))
        if dry_run:
            return
        if action.do is Do.FAIL:
            await self._fail(row, action, report)
        elif action.do is Do.ENQUEUE:
            await self._enqueue(row, report)
        elif action.do is Do.WARN and row["id"] not in self._warned:
            self._warned.add(row["id"])
            emit("lifecycle.overdue", row, owner=row["owner"], overdue_s=round(facts.overdue or 0.0, 3))

    async def _fail(self, row: Row, action: Action, report: Report) -> None:
        self._ledger.begin(row["id"], "swept", action.error)
        ending = await self._repository.end_lifecycle(
            row["id"],
            outcome=action.outcome,
            expect="pending" if row["status"] == "pending" else "running",
            owner=row["owner"],
            error=action.error,
            retry=action.retry,
        )
        if ending.applied:
            report.counts["failed"] += 1
            waited, took = _times(row)
            emit_end(
                row,
                "swept",
                owner=row["owner"],
                queue_wait_s=waited,
                duration_s=took,
                error=action.error,
                retry_id=ending.retry_id,
            )
            report.counts["retried"] += ending.retry_id is not None
            tell_retry(row, ending)
        self._ledger.told(row["id"])

    async def _enqueue(self, row: Row, report: Report) -> None:
        if not await self._repository.record_delivery(row["id"], row["deliveries"]):
            return
        delivery = Delivery.latest(row).next()
        try:
            await self._queue.enqueue([delivery])
        except QueueUnavailable as error:
            self._queue_lost = True
            if self._outage:
                self._outage.failed("states", str(error))  # they are read again before anything is enqueued
            return
        report.counts["redelivered"] += 1
        emit("lifecycle.redelivered", row, delivery=delivery.number)

    async def _prune(self, report: Report) -> None:
        if time.monotonic() - self._pruned_at < _PRUNE_EVERY_S:
            return
        before = now() - timedelta(seconds=self._settings.retention)
        pruned = await self._repository.prune_lifecycles(before)
        report.counts["pruned"] += pruned
        if not pruned:
            self._pruned_at = time.monotonic()


def _times(row: Row) -> tuple[float | None, float | None]:
    if row["claimed_at"] is None:
        return None, None
    took = seconds_since(row["claimed_at"])
    return round(max(0.0, seconds_since(row["started_at"]) - took), 3), took


def _run_of(row: Row) -> str | None:
    owner = Owner.parse(row["owner"])
    return None if owner is None else owner.token


def _first_in_line(rows: list[Row]) -> set[str]:
    first: dict[tuple[str, str | None], str] = {}
    for row in rows:
        first.setdefault((row["decky_name"], row["host_uuid"]), row["id"])
    return set(first.values())
