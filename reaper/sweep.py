"""The sweep: looks at every open row, asks the rules, does what they say. Repeating it is harmless."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from reaper.clock import Ages
from reaper.report import Report
from reaper.rules import Action, Do, Facts, Policy, decide
from reaper.settings import ReaperSettings
from reaper.untold import tell_untold
from repo.base import BaseRepository, Row
from worker.events import emit, emit_end
from worker.execute import now, ring_next, seconds_since, tell_retry
from worker.ledger import Ledger
from worker.locks import DeckyLock, DeckyLocks, end_holder
from worker.owner import Owner, boot_id
from worker.queue import Delivery, DeliveryState, Queue, QueueUnavailable

# Rows that are closed side by side: enough to share the store's transactions, few enough for descriptors.
_AT_ONCE = 200
# How long a killed process may take to let go of a lock before it is left to the next pass, in seconds.
_LET_GO_S = 2.0
_PRUNE_EVERY_S = 60.0
# How long systemd gets to say what a worker of its died of, in seconds.
_MANAGER_TELLS_S = 5.0


class Sweeper:
    """One reaper's eye on the store.

    Args:
        repository, queue, locks: what it looks at.
        settings: limits.
        ages: injected by tests that turn the clock.
    """

    def __init__(
        self,
        repository: BaseRepository,
        queue: Queue,
        locks: DeckyLocks,
        settings: ReaperSettings,
        ages: Ages | None = None,
    ) -> None:
        self._repository = repository
        self._queue = queue
        self._locks = locks
        self.reload(settings)
        self._ledger = Ledger(settings.runtime_dir)
        self._ages = Ages() if ages is None else ages
        self._queue_lost = True
        self._warned: set[str] = set()
        self._timed_out: dict[str, float] = {}
        self._found_dead: dict[str, float] = {}
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
        rows = [row for row in everything if run is None or (row["owner"] or "").endswith(f"/{run}")]
        first = _first_in_line(everything)
        states = await self._states([row for row in rows if row["id"] in first]) if with_queue else None
        queue_up = states is not None if with_queue else None
        report = Report(rows, Counter(), [], set(), queue_up)

        async def handle(row: Row) -> None:
            facts = Facts(
                visible=row["host_uuid"] in {None, self._settings.host_uuid},
                age=self._ages.age((row["id"], row["started_at"]), row["started_at"]),
                since_rung=self._ages.age(
                    (row["id"], row["deliveries"]), row["rung_at"] or row["started_at"]
                ),
                first_in_line=row["id"] in first,
                delivery="unknown" if states is None else states.get(row["id"], "absent"),
                queue_lost=self._queue_lost,
                died_of=died_of,
                timed_out=self._timed_out.get(row["id"]),
            )
            await self._handle(row, facts, policy, report, at_start=trigger == "start", dry_run=dry_run)

        for start in range(0, len(rows), _AT_ONCE):
            await asyncio.gather(*map(handle, rows[start : start + _AT_ONCE]))
        if states is not None:
            self._queue_lost = False
        if not dry_run:
            await self._prune(report)
            self._remember(everything)
        report.tell(trigger, time.monotonic() - begun)
        return report

    async def _states(self, rows: list[Row]) -> dict[str, DeliveryState] | None:
        pending = [row for row in rows if row["status"] == "pending"]
        try:
            self._queue_lost |= await self._queue.was_emptied()
            deliveries = [Delivery(row["id"], row["deliveries"], row["host_uuid"]) for row in pending]
            states = await self._queue.states(deliveries) if deliveries else []
        except QueueUnavailable:
            self._queue_lost = True
            return None
        return {row["id"]: state for row, state in zip(pending, states, strict=True)}

    async def _handle(
        self, row: Row, facts: Facts, policy: Policy, report: Report, *, at_start: bool, dry_run: bool
    ) -> None:
        if row["status"] == "running" and facts.visible:
            lock = self._locks.try_lock(row["decky_name"], row["host_uuid"])
            facts = self._judge_owner(row, facts, report, lock_free=lock is not None, at_start=at_start)
            action = decide(row, facts, policy)
            if action.do in {Do.END_SURVIVORS, Do.END_OWNER} and not dry_run:
                lock = await self._end_processes(row, action, report)
                facts = self._judge_owner(row, facts, report, lock_free=lock is not None, at_start=at_start)
                action = decide(row, facts, policy) if lock is not None else action
            if lock is not None:
                with lock:
                    await self._apply(row, action, facts, report, dry_run=dry_run)
                await self._ring_next(row, dry_run=dry_run)
                return
        else:
            action = decide(row, facts, policy)
        await self._apply(row, action, facts, report, dry_run=dry_run)

    def _judge_owner(
        self, row: Row, facts: Facts, report: Report, *, lock_free: bool, at_start: bool
    ) -> Facts:
        owner = Owner.parse(row["owner"])
        # Asked once a pass: whoever ends meanwhile is watched, and his end makes the next pass.
        alive = owner is not None and (owner in report.owners or owner.alive)
        if owner is not None and alive:
            report.owners.add(owner)
        predates = at_start or owner is None or owner.boot != boot_id()
        holder = None if lock_free else self._locks.read(row["decky_name"], row["host_uuid"])
        overdue = time.monotonic() - holder.deadline if holder and holder.lifecycle_id == row["id"] else None
        return replace(
            facts,
            lock_free=lock_free,
            owner_alive=alive,
            owner_predates=predates,
            reason_awaited=not (alive or predates or facts.died_of) and self._reason_awaited(row, owner),
            overdue=overdue,
            timed_out=self._timed_out.get(row["id"]),
        )

    def _reason_awaited(self, row: Row, owner: Owner | None) -> bool:
        # ExecStopPost= closes these rows and knows why (decnet-worker@.service). Past that they are ours.
        if owner is None or not owner.supervised:
            return False
        now_s = time.monotonic()
        return now_s - self._found_dead.setdefault(row["id"], now_s) < _MANAGER_TELLS_S

    async def _end_processes(self, row: Row, action: Action, report: Report) -> DeckyLock | None:
        owner = Owner.parse(row["owner"])
        if owner is not None and action.do is Do.END_OWNER:
            self._timed_out[row["id"]] = self._settings.operation_timeout
            owner.kill()
            report.owners.discard(owner)
            report.counts["ended"] += 1
        decky = row["decky_name"], row["host_uuid"]
        give_up = time.monotonic() + _LET_GO_S
        while (lock := self._locks.try_lock(*decky)) is None and time.monotonic() < give_up:
            if owner is not None and not owner.alive:
                survivors = self._locks.survivors(*decky, owner.pid)
                if ended := [pid for pid in survivors if end_holder(self._locks, *decky, pid)]:
                    report.counts["ended"] += len(ended)
                    emit("lifecycle.survivors_ended", row, pids=ended)
            await asyncio.sleep(0.02)
        return lock

    async def _apply(self, row: Row, action: Action, facts: Facts, report: Report, *, dry_run: bool) -> None:
        if action.do is Do.LEAVE:
            return
        report.actions.append((row, action))
        if dry_run:
            return
        if action.do is Do.FAIL:
            await self._fail(row, action, report)
        elif action.do is Do.RING:
            await self._ring(row, report)
        elif action.do is Do.WARN and row["id"] not in self._warned:
            self._warned.add(row["id"])
            emit("lifecycle.overdue", row, owner=row["owner"], overdue_s=round(facts.overdue or 0.0, 3))

    async def _fail(self, row: Row, action: Action, report: Report) -> None:
        self._ledger.begin(row["id"], "swept", action.error)
        ending = await self._repository.end_lifecycle(
            row["id"],
            status="failed",
            expect=row["status"],
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

    async def _ring(self, row: Row, report: Report) -> None:
        if not await self._repository.note_delivery(row["id"], row["deliveries"]):
            return
        delivery = row["deliveries"] + 1
        try:
            await self._queue.ring([Delivery(row["id"], delivery, row["host_uuid"])])
        except QueueUnavailable:
            self._queue_lost = True
            return
        report.counts["redelivered"] += 1
        emit("lifecycle.redelivered", row, delivery=delivery)

    async def _ring_next(self, row: Row, *, dry_run: bool) -> None:
        # A job that found the lock in our hands has gone away; its row would wait for its next ring.
        if not dry_run:
            await ring_next(self._repository, self._queue, row["decky_name"], row["host_uuid"])

    async def _prune(self, report: Report) -> None:
        if time.monotonic() - self._pruned_at < _PRUNE_EVERY_S:
            return
        before = now() - timedelta(seconds=self._settings.retention)
        pruned = await self._repository.prune_lifecycles(before)
        report.counts["pruned"] += pruned
        if not pruned:
            self._pruned_at = time.monotonic()

    def _remember(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        stamps = [(row["id"], row["started_at"]) for row in rows]
        self._ages.keep([*stamps, *((row["id"], row["deliveries"]) for row in rows)])
        ids = {row["id"] for row in rows}
        self._warned &= ids
        self._found_dead = {key: found for key, found in self._found_dead.items() if key in ids}
        self._timed_out = {key: limit for key, limit in self._timed_out.items() if key in ids}


def _times(row: Row) -> tuple[float | None, float | None]:
    if row["claimed_at"] is None:
        return None, None
    took = seconds_since(row["claimed_at"])
    return round(max(0.0, seconds_since(row["started_at"]) - took), 3), took


def _first_in_line(rows: list[Row]) -> set[str]:
    first: dict[tuple[str, str | None], str] = {}
    for row in rows:
        first.setdefault((row["decky_name"], row["host_uuid"]), row["id"])
    return set(first.values())
