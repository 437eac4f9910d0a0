"""An outage of Redis as a daemon reports it: one line when it begins, one when it is over."""

import time
from datetime import datetime

from worker.logging.emit import emit

_FLAPPING_S = 30.0
"""A server that fails again so soon after it was back must work for as long before that is believed again."""


class Outage:
    """Whether Redis can be used, and since when not.

    A daemon uses Redis in several ways, of which one may fail while others work: a key of another type, a
    right that is missing, memory that is used up. An outage lasts from the first failure until each use that
    failed has worked again, and is logged once.

    Args:
        redis: the queue's DSN without its password.

    Attributes:
        since: local time at which the outage began; None while there is none.
    """

    def __init__(self, redis: str) -> None:
        self.since: datetime | None = None
        self._redis = redis
        self._failing: set[str] = set()
        self._began = self._usable_since = 0.0
        self._over_at = float("-inf")
        self._proving_s = 0.0

    @property
    def status(self) -> str:
        """For the service manager's status: empty, or ", Redis down since 10:02" (local time)."""
        return "" if self.since is None else f", Redis down since {self.since:%H:%M}"

    def failed(self, use: str, reason: str) -> None:
        """Redis could not be used.

        Args:
            use: what for, such as "poll".
            reason: one line, for people.
        """
        self._failing.add(use)
        if self.since is None:
            self.since = datetime.now().astimezone()
            self._began = time.monotonic()
            self._proving_s = _FLAPPING_S if self._began - self._over_at < _FLAPPING_S else 0.0
            emit("queue.unreachable", redis=self._redis, reason=reason)

    def worked(self, use: str) -> None:
        """Redis was just used for this."""
        if self.since is None:
            return
        now = time.monotonic()
        if use in self._failing:
            self._failing.remove(use)
            self._usable_since = now
        if not self._failing and now - self._usable_since >= self._proving_s:
            self.since = None
            self._over_at = now
            emit("queue.recovered", redis=self._redis, down_s=round(self._usable_since - self._began, 3))
