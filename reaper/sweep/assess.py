"""What is known about an open row, and so what the rules say of it. Looks, and changes nothing.

A sweep asks for every open row and nearly always finds nothing to do, so this is plain code without an await,
and a row that was found at work is looked at again with one flock(2). What can't be looked at is noted and
left, and keeps no other row waiting.
"""

import resource
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from reaper.settings import ReaperSettings
from reaper.sweep.ages import Ages
from reaper.sweep.report import Scope
from reaper.sweep.rules import Action, Do, Facts, OtherHost, decide
from repo.base import Lifecycle
from repo.errors import DecnetReaperError
from repo.lifecycle import Sighting
from repo.sqlite.location import sqlite_path
from worker.liveness.locks import DeckyLock, DeckyLocks, Holder, LockFile
from worker.liveness.owner import Owner, boot_id
from worker.queue import DeliveryState

# How long systemd gets to say what a worker of its died of, in seconds.
_MANAGER_TELLS_S = 5.0
# How old a look at all processes may be, in seconds.
_HOLDS_FOR_S = 0.1


class SweepContext(NamedTuple):
    """What is the same for every row of one sweep.

    Attributes:
        scope: how far the sweep goes.
        policy: the limits.
        at_start: this is a reaper's first sweep.
        first_in_line: ids of the rows that are their decky's oldest open ones.
        states: where the last deliveries of pending rows are; None while Redis is away, or isn't asked.
        queue_lost: Redis was away or was emptied since the last sweep.
        owners: those that were found alive.
        hosts: which other hosts are there; None where that isn't known.
    """

    scope: Scope
    policy: ReaperSettings
    at_start: bool
    first_in_line: set[str]
    states: Mapping[str, DeliveryState] | None
    queue_lost: bool
    owners: set[Owner]
    hosts: Mapping[str | None, Sighting] | None = None


class Assessment(NamedTuple):
    """What is to be done with a row.

    Attributes:
        action: what.
        facts: from what it follows.
        lock: the decky's lock if it was free: it is held now, and whoever has the assessment gives it up.
    """

    action: Action
    facts: Facts
    lock: DeckyLock | None


class _AtWork(NamedTuple):
    """A running row whose operation was found at work, within its time."""

    file: LockFile
    owner: Owner
    deadline: float


class Assessor:
    """Looks at rows, and remembers from sweep to sweep what can't be asked again.

    Args:
        locks: the decky locks of this host.
        settings: of which host the rows are judged, and which store they are in.
        ages: how old rows are.
    """

    def __init__(self, locks: DeckyLocks, settings: ReaperSettings, ages: Ages) -> None:
        self._locks = locks
        self._own_host = settings.host_uuid
        self._in_file = sqlite_path(settings.database) is not None
        self._boot = boot_id()
        self._ages = ages
        self._timed_out: dict[str, float] = {}
        self._found_dead: dict[str, float] = {}
        self._at_work: dict[str, _AtWork] = {}
        # What finds no place is opened anew in each sweep.
        self._most_kept = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2

    def assess_all(
        self, rows: Iterable[Lifecycle], during: SweepContext
    ) -> list[tuple[Lifecycle, Assessment]]:
        """Those of some open rows with which something is to be done, or whose lock was free."""
        found: list[tuple[Lifecycle, Assessment]] = []
        for row in rows:
            try:
                if self._still_at_work(row, during):
                    continue
                assessment = self._assess(row, during)
            except Exception as error:  # whatever is wrong with this row, the others are looked at
                assessment = Assessment(Action(Do.NOTE, reason_of(error)), Facts(), None)
            if assessment.lock is not None or assessment.action.do is not Do.LEAVE:
                found.append((row, assessment))
        return found

    def _assess(self, row: Lifecycle, during: SweepContext) -> Assessment:
        own = row["host_uuid"] == self._own_host
        if own and row["status"] == "running":
            file = self._locks.open(row["decky_name"], row["host_uuid"])
            lock = file.try_lock()
            try:
                holder = file.read() if lock is None else None
                self._remember(row, during, file, holder)
                return self.assess_running(row, during, lock, holder)
            except Exception:
                if lock is not None:
                    lock.release()
                raise
        age = self._ages.age((row["id"], row["started_at"]), row["started_at"])
        expired = age > during.policy.pending_ttl
        facts = Facts(
            host="own" if own else self._other_host(row, during),
            served=own and (not expired or self._locks.directory.runs("worker")),
            age=age,
            since_enqueued=self._ages.age(
                (row["id"], row["deliveries"]), row["enqueued_at"] or row["started_at"]
            ),
            first_in_line=row["id"] in during.first_in_line,
            delivery="unknown" if during.states is None else during.states.get(row["id"], "absent"),
            queue_lost=during.queue_lost,
        )
        return Assessment(decide(row, facts, during.policy), facts, None)

    def _other_host(self, row: Lifecycle, during: SweepContext) -> OtherHost:
        # A store in a file has one lock directory, and so one host: nobody serves the rows of another.
        if self._in_file:
            return "unserved"
        if during.hosts is None:
            return "other"
        if (sighting := during.hosts.get(row["host_uuid"])) is None:
            return "unserved"
        if sighting.present:
            return "other"
        return "lost" if sighting.lost else "absent"

    def assess_running(
        self, row: Lifecycle, during: SweepContext, lock: DeckyLock | None, holder: Holder | None = None
    ) -> Assessment:
        """What is to be done with a running row of this host.

        Args:
            row: which.
            during: the sweep.
            lock: its decky's lock, if we hold it.
            holder: who holds it, if we don't.
        """
        owner = Owner.parse(row["owner"])
        alive = owner is not None and _alive(owner, during)
        died_of = during.scope.died_of
        predates = during.at_start or owner is None or owner.boot != self._boot
        overdue = time.monotonic() - holder.deadline if holder and holder.lifecycle_id == row["id"] else None
        own_lock = owner is None or owner.boot != self._boot or self._claimed_under(owner, row, lock)
        facts = Facts(
            lock_free=lock is not None,
            own_lock=own_lock,
            survivors=not (own_lock or alive) and self._has_survivors(row, owner),
            owner_alive=alive,
            owner_predates=predates,
            reason_awaited=not (alive or predates or died_of) and self._reason_awaited(row, owner),
            overdue=overdue,
            timed_out=self._timed_out.get(row["id"]),
            died_of=died_of,
        )
        return Assessment(decide(row, facts, during.policy), facts, lock)

    def _claimed_under(self, owner: Owner, row: Lifecycle, lock: DeckyLock | None) -> bool:
        """Whether the lock that was looked at is the one that the row was claimed under."""
        if owner.locks != self._locks.directory.id:
            return False
        # Each owner names its row in the file before it claims; a file that was deleted and made anew doesn't
        # name it, nor one that a later job has named its own row in.
        if lock is None or ((holder := lock.read()) is not None and holder.lifecycle_id == row["id"]):
            return True
        # Whoever never learnt that its claim was made holds nothing.
        elsewhere = self._locks.may_hold_another(owner, row["decky_name"], row["host_uuid"], lock)
        return owner.alive and not elsewhere

    def _has_survivors(self, row: Lifecycle, owner: Owner | None) -> bool:
        return owner is not None and bool(
            self._locks.survivors(row["decky_name"], row["host_uuid"], owner, max_age=_HOLDS_FOR_S)
        )

    def _still_at_work(self, row: Lifecycle, during: SweepContext) -> bool:
        """Whether a row that was found at work still is; if not, or if that isn't known, it is assessed."""
        if (known := self._at_work.get(row["id"])) is None:
            return False
        if time.monotonic() < known.deadline and _alive(known.owner, during):
            if (lock := known.file.try_lock()) is None:
                return True
            lock.release()
        del self._at_work[row["id"]]
        return False

    def _remember(self, row: Lifecycle, during: SweepContext, file: LockFile, holder: Holder | None) -> None:
        if holder is None or holder.lifecycle_id != row["id"] or len(self._at_work) >= self._most_kept:
            return
        owner = Owner.parse(row["owner"])
        if owner is not None and _alive(owner, during):
            self._at_work[row["id"]] = _AtWork(file, owner, holder.deadline)

    def timed_out(self, row: Lifecycle, limit: float) -> None:
        """Remember that a row's owner is ended because its operation took longer than so many seconds."""
        self._timed_out[row["id"]] = limit

    def keep(self, rows: list[Lifecycle]) -> None:
        """End a sweep: forget all that is not of these open rows."""
        ids = {row["id"] for row in rows}
        self._at_work = {key: known for key, known in self._at_work.items() if key in ids}
        aged = [row for row in rows if row["id"] not in self._at_work]
        stamps = [(row["id"], row["started_at"]) for row in aged]
        self._ages.keep([*stamps, *((row["id"], row["deliveries"]) for row in aged)])
        self._found_dead = {key: found for key, found in self._found_dead.items() if key in ids}
        self._timed_out = {key: limit for key, limit in self._timed_out.items() if key in ids}

    def _reason_awaited(self, row: Lifecycle, owner: Owner | None) -> bool:
        # ExecStopPost= has these rows closed, and knows why (decnet-worker@.service). Later they are ours.
        if owner is None or not owner.supervised:
            return False
        now_s = time.monotonic()
        return now_s - self._found_dead.setdefault(row["id"], now_s) < _MANAGER_TELLS_S


def reason_of(error: Exception) -> str:
    """Why something couldn't be looked at, in one line: an error of ours speaks for itself."""
    text = " ".join(str(error).split())
    return text if isinstance(error, DecnetReaperError) else f"{type(error).__name__}: {text}"


def _alive(owner: Owner, during: SweepContext) -> bool:
    # Asked once a sweep: whoever ends meanwhile is watched, and his end makes the next sweep.
    if owner not in during.owners and owner.alive:
        during.owners.add(owner)
    return owner in during.owners
