"""An outage of Redis as a daemon tells of it: one line when it begins, one when it is over."""

from datetime import datetime

from worker.logging.events import emit


class Outage:
    """Whether Redis is away, and since when.

    Args:
        redis: the queue's DSN without its password.
    """

    def __init__(self, redis: str) -> None:
        self._redis = redis
        self._since: datetime | None = None

    @property
    def told(self) -> str:
        """For the service manager's status: empty, or ", Redis down since 10:02" (local time)."""
        return "" if self._since is None else f", Redis down since {self._since:%H:%M}"

    def begun(self, reason: str) -> None:
        """Redis has gone."""
        self._since = datetime.now().astimezone()
        emit("queue.unreachable", redis=self._redis, reason=reason)

    def over(self, down: float) -> None:
        """Redis is back, after so many seconds."""
        self._since = None
        emit("queue.recovered", redis=self._redis, down_s=round(down, 3))
