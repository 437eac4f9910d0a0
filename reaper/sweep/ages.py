"""Ages that a stepping wall clock can't falsify.

A row's times are wall-clock times. The first time that a row is seen its age is the wall clock's; from then
on it grows with the monotonic clock, so that setting the clock a day ahead makes nothing old.
"""

import time
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime

from worker.clock import now

_STEP_S = 5.0
"""A wall clock that gained more than this on the steady one since the last sweep was set."""


class Ages:
    """The ages of what is open, remembered from sweep to sweep.

    Args:
        wall: gives the time as an aware UTC datetime.
        steady: gives seconds that never step.
    """

    def __init__(
        self, wall: Callable[[], datetime] = now, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._born: dict[Hashable, float] = {}
        self._offset: float | None = None

    def age(self, key: Hashable, since: str) -> float:
        """Seconds since an ISO 8601 time, never below zero.

        Args:
            key: what ages; a changed time wants a key of its own.
            since: when it began.
        """
        steady = self._steady()
        if key not in self._born:
            wall = self._wall()
            seconds = (wall - datetime.fromisoformat(since)).total_seconds()
            # What is seen first after the wall clock was set ahead may carry a time from before that.
            if (
                self._offset is not None
                and _STEP_S < (step := wall.timestamp() - steady - self._offset) <= seconds
            ):
                seconds -= step
            self._born[key] = steady - max(0.0, seconds)
        return steady - self._born[key]

    def keep(self, keys: Iterable[Hashable]) -> None:
        """End a sweep: forget all that is not among `keys`."""
        kept = set(keys)
        self._offset = self._wall().timestamp() - self._steady()
        self._born = {key: born for key, born in self._born.items() if key in kept}
