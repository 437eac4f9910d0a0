"""A daemon's word that its host is there: a session of its own in a PostgreSQL store."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata

from repo.factory import presence_of
from worker.logging.emit import emit
from worker.settings import WorkerSettings

Keep = Callable[[], Awaitable[None]]


@asynccontextmanager
async def present(
    settings: WorkerSettings,
    daemon: str,
    back: Callable[[], None] = lambda: None,
    gone: Callable[[], None] = lambda: None,
) -> AsyncIterator[Keep | None]:
    """Have this host present from now on.

    Args:
        settings: of this host.
        daemon: `worker` or `reaper`, as `hosts` shows it.
        back: called whenever the session is open again after it was lost.
        gone: called whenever it was lost.

    Yields:
        What keeps the session, to be supervised; None where the store is a file, and knows no hosts.

    Raises:
        StoreUnavailable: at the start; a pooler or a standby is refused with what to do about it.
    """
    name = f"decnet-reaper {daemon} {metadata.version('decnet-reaper')}"
    presence = presence_of(settings, settings.host_uuid, name)
    if presence is None:
        yield None
        return
    await presence.open()
    try:
        yield partial(presence.keep, SessionLog("own", back, gone))
    finally:
        await presence.close()


class SessionLog:
    """Logs once that a session was lost, and once that it is open again.

    Args:
        session: `own` for the one that says that this host is there, `observer` for the one that looks.
        back: called when it is open again.
        gone: called when it was lost.
    """

    def __init__(
        self,
        session: str,
        back: Callable[[], None] = lambda: None,
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._back = back
        self._gone = gone
        self._lost_at: float | None = None

    def __call__(self, reason: str | None) -> None:
        """Log how it stands, where that has changed.

        Args:
            reason: why there is no session; None where there is one.
        """
        if reason is not None and self._lost_at is None:
            self._lost_at = time.monotonic()
            self._gone()
            emit("presence.lost", session=self._session, reason=reason)
        elif reason is None and self._lost_at is not None:
            down_s, self._lost_at = round(time.monotonic() - self._lost_at, 3), None
            emit("presence.recovered", session=self._session, down_s=down_s)
            self._back()
