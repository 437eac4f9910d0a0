"""The sweep: looks at every open row, asks the rules, does what they say. Repeating it is harmless."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from datetime import timedelta

import msgspec

from reaper.settings import ReaperSettings, Seconds
from reaper.sweep.ages import Ages
from reaper.sweep.assess import Assessment, Assessor, SweepContext, reason_of
from reaper.sweep.closing import Closing
from reaper.sweep.hosts import Hosts, Sightings
from reaper.sweep.report import Report, Scope
from reaper.sweep.rules import Action, Do, Facts
from reaper.sweep.survivors import Survivors
from reaper.sweep.unreported import report_abandoned
from repo.base import ANY_HOST, BaseRepository, HostState, Lifecycle
from repo.errors import StoreUnavailable
from repo.sqlite.location import sqlite_path
from worker.clock import now
from worker.execution.order import enqueue_next
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.logging.emit import emit
from worker.queue import Delivery, DeliveryState, Outage, Queue, QueueUnavailable

# Rows that are closed side by side: enough to share the store's transactions, few enough for descriptors.
_AT_ONCE = 200
_PRUNE_EVERY_S = 60.0
_EVERYTHING = Scope()


class Sweeper:
    """One reaper's eye on the store.

    Args:
        repository, queue, locks: what it looks at.
        settings: limits.
        ages: injected by tests that turn the clock.
        outage: where it is reported that the queue's states can't be read, and that they can again.
        hosts: who knows which other hosts are there; None: rows of others are left to their own reapers.
    """

    def __init__(
        self,
        repository: BaseRepository,
        queue: Queue,
        locks: DeckyLocks,
        settings: ReaperSettings,
        ages: Ages | None = None,
        outage: Outage | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        self._repository = repository
        self._queue = queue
        self._locks = locks
        self._hosts = hosts
        self.reload(settings)
        self._assessor = Assessor(locks, settings, Ages() if ages is None else ages)
        # Nobody else judges the other hosts' rows of a store in a file; on a server each host has its reaper.
        self._judged = ANY_HOST if sqlite_path(settings.database) else settings.host_uuid
        self._closing = Closing(repository, locks.directory)
        self._starting = False
        self._absent: list[Lifecycle] = []
        self._was_away = True
        self._lost: set[str] = set()
        self._queue_lost = True
        self._outage = outage
        self._warned: set[str] = set()
        self._noted: dict[str, str] = {}
        self._survivors = Survivors(locks)
        self._pruned_at = -_PRUNE_EVERY_S

    def reload(self, settings: ReaperSettings) -> None:
        """Take over limits that have changed, from the next sweep on."""
        self._settings = settings
        if self._hosts is not None:
            self._hosts.reload(settings)

    @property
    def due_in(self) -> float:
        """Seconds after which another sweep is to look for the hosts, whatever the interval."""
        return math.inf if self._hosts is None else self._hosts.due_in

    def came_back(self) -> None:
        """This host was not seen for a while: the next sweep looks for what others have closed as lost."""
        self._was_away = True

    async def run(self, trigger: str, scope: Scope = _EVERYTHING) -> Report:
        """One sweep.

        Args:
            trigger: what caused it, for the log; "start" marks a reaper's first sweep. If that fails, the
                next one counts as that.
            scope: how far it goes.

        Raises:
            StoreUnavailable: the store can't be read or written; the next sweep tries again.
            LocksReplaced: what is known of the locks is not of those that are used now.
        """
        begun = time.monotonic()
        self._starting |= trigger == "start"
        self._locks.directory.check_same()
        if not scope.dry_run:
            await report_abandoned(self._repository, self._locks.directory)
        judged = await self._repository.list_open_lifecycles(self._judged)
        rows = [row for row in judged if scope.run is None or _run_of(row) == scope.run]
        first = _first_in_line(judged)
        states = await self._states([row for row in rows if row["id"] in first]) if scope.with_queue else None
        sightings, elsewhere = await self._elsewhere(scope) if scope.run is None else (None, [])
        rows += elsewhere
        report = Report(rows, Counter(), [], set(), states is not None if scope.with_queue else None)
        policy, at_start = self._policy_within(scope), self._starting and scope.run is None
        await self._handle_all(
            SweepContext(scope, policy, at_start, first, states, self._queue_lost, report.owners, sightings),
            report,
        )
        if report.queue_up:
            self._queue_lost = False
        if not scope.dry_run:
            await self._tidy(report, [*judged, *self._absent], scope)
            self._starting &= scope.run is not None
        report.log(trigger, time.monotonic() - begun)
        return report

    def _policy_within(self, scope: Scope) -> ReaperSettings:
        if scope.older_than is None:
            return self._settings
        limit = Seconds(scope.older_than)
        return msgspec.structs.replace(self._settings, pending_ttl=limit, stale_after=limit)

    async def _elsewhere(self, scope: Scope) -> tuple[Sightings | None, list[Lifecycle]]:
        """Which other hosts are there, and the open rows of those that are not, or never were."""
        sightings = None if self._hosts is None else await self._hosts.look(dry_run=scope.dry_run)
        if sightings is None:
            return None, []
        there = [host for host, sighting in sightings.items() if sighting.present]
        self._absent = await self._repository.list_open_elsewhere([self._settings.host_uuid, *there])
        return sightings, self._absent

    async def _tidy(self, report: Report, open_rows: list[Lifecycle], scope: Scope) -> None:
        """End what is left of lost rows, prune old ones, and forget what was known of those that ended."""
        if self._was_away and scope.run is None:
            self._lost = await self._end_lost(report)
            self._was_away = bool(self._lost)
        await self._prune(report)
        self._forget_all_but(open_rows)

    async def _end_lost(self, report: Report) -> set[str]:
        """End what is left of this host's rows that were closed as lost; ids of those that don't go."""
        lost = await self._repository.list_lost_lifecycles(self._settings.host_uuid)
        left = [row for row in lost if self._survivors.may_be_left(row)]
        try:
            async with asyncio.TaskGroup() as group:
                ends = [group.create_task(self._end_one_lost(row, report)) for row in left]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return {row["id"] for row, end in zip(left, ends, strict=True) if not end.result()}

    async def _end_one_lost(self, row: Lifecycle, report: Report) -> bool:
        lock = await self._survivors.end(row, None, own_lock=False, report=report)
        if lock is None:
            return False
        lock.release()
        await enqueue_next(self._repository, self._queue, row["decky_name"], row["host_uuid"])
        return True

    def _forget_all_but(self, rows: list[Lifecycle]) -> None:
        self._assessor.keep(rows)
        ids = {row["id"] for row in rows}
        self._warned &= ids
        self._survivors.keep(ids | self._lost)
        self._noted = {key: reason for key, reason in self._noted.items() if key in ids}

    async def _states(self, rows: list[Lifecycle]) -> dict[str, DeliveryState] | None:
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

    async def _handle_all(self, during: SweepContext, report: Report) -> None:
        for start in range(0, report.rows, _AT_ONCE):
            await self._handle_some(report.seen[start : start + _AT_ONCE], during, report)

    async def _handle_some(self, rows: list[Lifecycle], during: SweepContext, report: Report) -> None:
        assessed = self._assessor.assess_all(rows, during)
        errors = await asyncio.gather(
            *(self._handle(row, found, during, report) for row, found in assessed),
            return_exceptions=True,
        )
        for (row, _), error in zip(assessed, errors, strict=True):
            if isinstance(error, StoreUnavailable) or not isinstance(error, Exception | None):
                raise error
            if error is not None:
                self._note(row, reason_of(error))

    async def _handle(
        self, row: Lifecycle, assessment: Assessment, during: SweepContext, report: Report
    ) -> None:
        action, facts, lock = assessment
        dry_run = during.scope.dry_run
        ended = action.do in {Do.END_SURVIVORS, Do.END_OWNER} and not dry_run
        if ended:
            if action.do is Do.END_OWNER:
                self._end_owner(row, report)
            lock = await self._survivors.end(row, lock, own_lock=facts.own_lock, report=report)
        with lock or contextlib.nullcontext():
            if ended and lock is not None:
                action, facts, _ = self._assessor.assess_running(row, during, lock)
            await self._apply(row, action, facts, report, dry_run=dry_run)
        if lock is not None and not dry_run:
            # A job that found the lock in our hands has gone away; its row would wait for its next delivery.
            await enqueue_next(self._repository, self._queue, row["decky_name"], row["host_uuid"])

    def _end_owner(self, row: Lifecycle, report: Report) -> None:
        if (owner := Owner.parse(row["owner"])) is not None:
            self._assessor.timed_out(row, self._settings.operation_timeout)
            owner.kill()
            report.owners.discard(owner)
            report.counts["ended"] += 1

    async def _apply(
        self, row: Lifecycle, action: Action, facts: Facts, report: Report, *, dry_run: bool
    ) -> None:
        if action.do is Do.LEAVE:
            self._noted.pop(row["id"], None)
        elif dry_run:
            report.actions.append((row, action))
        elif action.do is Do.FAIL:
            if_host = _must_be(facts)
            retried = await self._closing.fail(row, action, report, if_host=if_host)
            if retried and facts.host == "lost":  # its own worker is to have it as soon as it is back
                await enqueue_next(self._repository, self._queue, row["decky_name"], row["host_uuid"])
        elif action.do is Do.ENQUEUE:
            await self._enqueue(row, action, report)
        elif action.do is Do.NOTE:
            self._note(row, action.error)
        elif action.do is Do.END_SURVIVORS:
            self._note(row, "its worker is dead, and processes that can't be ended hold its lock")
        elif action.do is Do.WARN and row["id"] not in self._warned:
            self._warned.add(row["id"])
            emit("lifecycle.overdue", row, owner=row["owner"], overdue_s=round(facts.overdue or 0.0, 3))

    def _note(self, row: Lifecycle, reason: str) -> None:
        if self._noted.get(row["id"]) != reason:
            self._noted[row["id"]] = reason
            emit("lifecycle.not_assessed", row, owner=row["owner"], reason=reason)

    async def _enqueue(self, row: Lifecycle, action: Action, report: Report) -> None:
        if not await self._repository.record_delivery(row["id"], row["deliveries"]):
            return
        delivery = Delivery.latest(row).next()
        try:
            await self._queue.enqueue([delivery])
        except QueueUnavailable as error:
            self._queue_lost, report.queue_up = True, False
            if self._outage:
                self._outage.failed("states", str(error))  # they are read again before anything is enqueued
            return
        report.actions.append((row, action))
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


def _must_be(facts: Facts) -> HostState | None:
    """What another's host must still be when its row is closed: it may be back since it was looked for."""
    if facts.host == "own":
        return None
    return "lost" if facts.host == "lost" else "absent"


def _run_of(row: Lifecycle) -> str | None:
    owner = Owner.parse(row["owner"])
    return None if owner is None else owner.token


def _first_in_line(rows: list[Lifecycle]) -> set[str]:
    first: dict[tuple[str, str | None], str] = {}
    for row in rows:
        first.setdefault((row["decky_name"], row["host_uuid"]), row["id"])
    return set(first.values())
