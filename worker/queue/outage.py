"""What a worker says about Redis: once that it is away, once that it is back."""

import contextlib
import random
import time
from collections.abc import Callable

_BACK_OFF = (0.1, 2.0)
"""Seconds between two attempts to reach Redis: at first, and at most."""


class Outage:
    """Says once that Redis is away and once that it is back, and how long to wait before the next attempt."""

    def __init__(self, on_outage: Callable[[str], None], on_recovery: Callable[[float], None]) -> None:
        self._on_outage = on_outage
        self._on_recovery = on_recovery
        self._since: float | None = None
        self._delay = _BACK_OFF[0]

    def met(self, reason: str) -> float:
        """Redis can't be used: seconds to wait (jittered, so that a fleet doesn't return in step)."""
        if self._since is None:
            self._since = time.monotonic()
            self._delay = _BACK_OFF[0]
            tell(self._on_outage, reason)
        delay, self._delay = self._delay, min(2 * self._delay, _BACK_OFF[1])
        return delay * random.uniform(0.5, 1)  # noqa: S311  # jitter, not a secret

    def over(self) -> None:
        """Redis was just used."""
        if self._since is not None:
            since, self._since = self._since, None
            tell(self._on_recovery, time.monotonic() - since)


def tell(callback: Callable[..., None], *args: object) -> None:
    """Call back; what the callback raises is its own affair (a log stream may be full, or gone)."""
    with contextlib.suppress(Exception):
        callback(*args)
