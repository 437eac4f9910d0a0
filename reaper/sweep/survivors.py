"""Ends what still works for a row whose worker is dead, or far past its deadline."""

import asyncio
import time
from typing import Final

from reaper.sweep.report import Report
from repo.base import Lifecycle
from worker.liveness.holders import Hold, end_holder
from worker.liveness.locks import DeckyLock, DeckyLocks
from worker.liveness.owner import Owner, boot_id
from worker.logging.emit import emit

_LET_GO_S: Final = 2.0
"""How long a killed process may take to let go of a lock before it is left to the next sweep, in seconds."""
_LOOK_EVERY_S: Final = 0.02
_LOOK_MAX_AGE_S: Final = 0.1


class Survivors:
    """Ends the processes that survive, and remembers those that don't go.

    Args:
        locks: the decky locks of this host.
    """

    def __init__(self, locks: DeckyLocks) -> None:
        self._locks = locks
        self._waited_for: set[str] = set()
        self._told: dict[str, set[int]] = {}

    async def end(
        self, row: Lifecycle, lock: DeckyLock | None, *, own_lock: bool, report: Report
    ) -> DeckyLock | None:
        """End the processes that hold a row's lock because its dead worker passed it on to them.

        Args:
            row: which.
            lock: its decky's lock, if we hold it.
            own_lock: whether that is the lock that the row was claimed under.
            report: counts what was ended.

        Returns:
            The decky's lock, if it could be had in time.
        """
        owner = Owner.parse(row["owner"])
        # Who was waited for in vain holds up no sweep again.
        give_up = time.monotonic() + (0.0 if row["id"] in self._waited_for else _LET_GO_S)
        try:
            while True:
                lock = lock or self._locks.try_lock(row["decky_name"], row["host_uuid"])
                # Where the lock is the row's own and free, nobody can be left.
                left = [] if lock and own_lock else self._of(row, owner)
                if lock is not None and not left:
                    return lock
                told = self._told.setdefault(row["id"], set())
                if pids := [hold.pid for hold in left if end_holder(hold) and hold.pid not in told]:
                    told.update(pids)
                    report.counts["ended"] += len(pids)
                    emit("lifecycle.survivors_ended", row, pids=pids)
                if time.monotonic() > give_up:
                    self._waited_for.add(row["id"])
                    return lock
                await asyncio.sleep(_LOOK_EVERY_S)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def may_be_left(self, row: Lifecycle) -> bool:
        """Whether processes of a row that has ended may have outlived their worker since this boot."""
        owner = Owner.parse(row["owner"])
        return owner is not None and owner.boot == boot_id() and bool(self._of(row, owner))

    def keep(self, ids: set[str]) -> None:
        """End a sweep: forget all that is not of these rows."""
        self._waited_for &= ids
        self._told = {key: pids for key, pids in self._told.items() if key in ids}

    def _of(self, row: Lifecycle, owner: Owner | None) -> list[Hold]:
        if owner is None or owner.alive:
            return []
        return self._locks.survivors(row["decky_name"], row["host_uuid"], owner, max_age=_LOOK_MAX_AGE_S)
