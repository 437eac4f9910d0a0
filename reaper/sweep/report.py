"""How far a sweep goes, what it saw and did, and what the log says of it."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from reaper.sweep.rules import Action
from repo.base import Lifecycle
from worker.clock import seconds_since
from worker.liveness.owner import Owner
from worker.logging.emit import emit

_WATCHING_EVERY_S = 60.0


class Scope(NamedTuple):
    """How far a sweep goes.

    Attributes:
        with_queue: False applies only the rules that don't need Redis.
        older_than: give up pending rows, and rows of other hosts, that are older than this many seconds.
        run: look only at the rows of this run of a unit, which has ended.
        died_of: what the service manager says that it died of.
        dry_run: decide, but do nothing.
    """

    with_queue: bool = True
    older_than: float | None = None
    run: str | None = None
    died_of: str = ""
    dry_run: bool = False


@dataclass
class Report:
    """What a sweep saw and did.

    Attributes:
        seen: the open rows.
        counts: how often each thing was done: failed, retried, redelivered, ended, pruned.
        actions: what was decided, row by row, where it was not to leave the row alone.
        owners: owners of running rows that are alive.
        queue_up: whether Redis answered; None if it wasn't asked.
    """

    seen: list[Lifecycle]
    counts: Counter[str]
    actions: list[tuple[Lifecycle, Action]]
    owners: set[Owner]
    queue_up: bool | None

    @property
    def rows(self) -> int:
        """How many open rows were seen."""
        return len(self.seen)

    def log(self, trigger: str, took: float) -> None:
        """Log the sweep, if it did anything.

        Args:
            trigger: what caused it.
            took: seconds.
        """
        done = self.counts
        if done.total():
            emit(
                "reaper.swept",
                trigger=trigger,
                rows=self.rows,
                failed=done["failed"],
                retried=done["retried"],
                redelivered=done["redelivered"],
                ended=done["ended"],
                pruned=done["pruned"],
                duration_s=round(took, 3),
            )


class SignOfLife:
    """The reaper's sign of life: at its first sweep, then once a minute. Its silence can be alerted on."""

    def __init__(self) -> None:
        self._logged = -_WATCHING_EVERY_S

    def log(self, report: Report) -> None:
        """Log how things stand, if it is time.

        Args:
            report: of the sweep that was just made.
        """
        if time.monotonic() - self._logged < _WATCHING_EVERY_S:
            return
        self._logged = time.monotonic()
        waiting = [row["started_at"] for row in report.seen if row["status"] == "pending"]
        emit(
            "reaper.watching",
            pending=len(waiting),
            running=report.rows - len(waiting),
            oldest_pending_s=seconds_since(min(waiting)) if waiting else 0.0,
            queue_up=report.queue_up,
        )
