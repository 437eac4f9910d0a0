"""The reaper's decision: one open row, what is known about it, what to do. Pure; no clock, no I/O.

Read `decide` beside the table in the documentation: one line of the table is one `return`.
"""

from enum import Enum
from typing import Literal, NamedTuple

import msgspec

from reaper.settings import ReaperSettings
from repo.base import CANCELLED, Lifecycle, Outcome
from repo.settings import as_setting

WORKER_DIED = "worker died during operation"
HOST_LOST = "host lost during operation; what became of it is not known"
MASTER_RESTARTED = "master restarted during operation"

FIRST_BACKOFF_S = 5.0
LAST_BACKOFF_S = 60.0


OtherHost = Literal["unserved", "other", "absent", "lost"]


class Do(Enum):
    """What the sweep is to do with a row."""

    LEAVE = "leave it"
    FAIL = "close it as failed, and accept a retry if asked"
    END_SURVIVORS = "end what is left of its operation, then look again"
    END_OWNER = "end its worker, which does not respond, then look again"
    WARN = "log that it is overdue"
    NOTE = "leave it, since it can't be judged"
    ENQUEUE = "enqueue it again"


class Action(NamedTuple):
    """What to do, and why; for FAIL also whether to try again, and as what the row ends."""

    do: Do
    error: str = ""
    retry: bool = False
    outcome: Outcome = "swept"


LEAVE = Action(Do.LEAVE)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one open row.

    Attributes:
        host: whose row it is: our "own" host's; of an "unserved" one, of which no daemon was ever there; of
            an "other" one, whose own reaper judges it; of one that is "absent", or "lost" by now.
        served: a worker of the row's host runs.
        age: seconds since it was accepted.
        since_enqueued: seconds since it was last enqueued.
        first_in_line: no older open row of its decky is there.
        delivery: where its last delivery is; "unknown" while Redis is away.
        queue_lost: Redis was away or was emptied since the last sweep.
        lock_free: nobody holds its decky's lock (we do, while this is decided).
        own_lock: that is the lock under which the row was claimed, or the boot of its claim is over.
        survivors: its owner is dead, and processes of its operation hold the lock that it was claimed under.
        owner_alive: its owner's process exists.
        owner_predates: its owner died before this reaper started, or in an earlier boot.
        overdue: seconds past the deadline that its holder wrote down; None if there is none.
        timed_out: we ended its owner for being overdue; the operation's limit in seconds.
        reason_awaited: its worker died a moment ago, and the service manager is about to say of what.
        died_of: what the service manager says of the worker's death, such as "oom-kill".
    """

    host: Literal["own"] | OtherHost = "own"
    served: bool = True
    age: float = 0.0
    since_enqueued: float = 0.0
    first_in_line: bool = True
    delivery: Literal["queued", "picked", "absent", "unknown"] = "unknown"
    queue_lost: bool = False
    lock_free: bool = False
    own_lock: bool = True
    survivors: bool = False
    owner_alive: bool = True
    owner_predates: bool = False
    overdue: float | None = None
    timed_out: float | None = None
    reason_awaited: bool = False
    died_of: str = ""


def decide(row: Lifecycle, facts: Facts, policy: ReaperSettings) -> Action:
    """What to do with one open row.

    Args:
        row: as the store returns it; `status` is pending or running.
        facts: what is known about it.
        policy: the limits.
    """
    if facts.host == "other":
        return LEAVE
    if row["status"] == "running":
        if facts.host == "lost":
            return _lost(row, policy)
        if facts.host == "absent":
            return LEAVE
        return _decide_running(row, facts, policy) if facts.host == "own" else _decide_unseen(facts, policy)
    if facts.age > policy.pending_ttl:
        return Action(Do.FAIL, _not_started(row, facts, policy), outcome="expired")
    if facts.host != "own":
        return LEAVE
    if not facts.first_in_line or facts.delivery in {"queued", "unknown"}:
        return LEAVE
    if facts.delivery == "absent" and facts.queue_lost:
        return Action(Do.ENQUEUE)
    return Action(Do.ENQUEUE) if facts.since_enqueued >= backoff(row["deliveries"]) else LEAVE


def _decide_running(row: Lifecycle, facts: Facts, policy: ReaperSettings) -> Action:
    if not facts.own_lock and facts.owner_alive:
        return Action(Do.NOTE, "claimed under another lock, and its worker is alive")
    if facts.lock_free and not facts.survivors:
        return _orphaned(row, facts, policy)
    if not facts.owner_alive:
        return Action(Do.END_SURVIVORS)
    if facts.overdue is None or facts.overdue <= 0:
        return LEAVE
    return Action(Do.END_OWNER if facts.overdue > policy.overdue_grace else Do.WARN)


def _decide_unseen(facts: Facts, policy: ReaperSettings) -> Action:
    stale = facts.age > policy.stale_after
    return Action(Do.FAIL, f"not seen for {as_setting(policy.stale_after)}") if stale else LEAVE


def _not_started(row: Lifecycle, facts: Facts, policy: ReaperSettings) -> str:
    reason = f"not started within {as_setting(policy.pending_ttl)}"
    if facts.served:
        return reason
    if facts.host in {"absent", "lost"}:
        whom = "the master's own host" if row["host_uuid"] is None else f"host {row['host_uuid']}"
        return f"{reason}: {whom} not seen"
    whom = "the master's own deckies" if row["host_uuid"] is None else f"host {row['host_uuid']}"
    return f"{reason}: no worker serves {whom}"


def _lost(row: Lifecycle, policy: ReaperSettings) -> Action:
    if row["cancel_requested_at"] is not None:
        return Action(Do.FAIL, CANCELLED, outcome="cancelled")
    return Action(Do.FAIL, HOST_LOST, _may_repeat(row, policy), "lost")


def _orphaned(row: Lifecycle, facts: Facts, policy: ReaperSettings) -> Action:
    if row["cancel_requested_at"] is not None:
        return Action(Do.FAIL, CANCELLED, outcome="cancelled")
    if facts.reason_awaited:
        return LEAVE
    outcome: Outcome = "swept" if facts.timed_out is None else "timed_out"
    error = MASTER_RESTARTED if facts.owner_predates else WORKER_DIED
    if facts.died_of:
        error = f"{WORKER_DIED} ({facts.died_of})"
    if facts.timed_out is not None:
        error = f"timed out after {facts.timed_out:g} s"
    return Action(Do.FAIL, error, _may_repeat(row, policy), outcome)


def _may_repeat(row: Lifecycle, policy: ReaperSettings) -> bool:
    # A row that another program set running has no owner, and maybe no request that could be repeated.
    return row["owner"] is not None and row["attempt"] < policy.max_attempts


def backoff(deliveries: int) -> float:
    """Seconds from the n-th delivery to the next: 5, 10, 20, 40, 60, 60 ... (none before the first)."""
    return min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(deliveries - 1, 5)) if deliveries else 0.0
