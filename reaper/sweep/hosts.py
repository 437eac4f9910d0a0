"""Which hosts are there, as a reaper sees it from sweep to sweep, and what it says of those that go and come.

Only where the store is PostgreSQL, and only for a reaper whose role may know of other hosts: one with the
role that `hosts add` made knows its own rows, and judges those.
"""

import math
from collections.abc import Mapping

from reaper.settings import ReaperSettings
from repo.errors import StoreUnavailable
from repo.factory import observer_of
from repo.lifecycle import Sighting
from worker.logging.emit import emit
from worker.service.presence import SessionLog

LEAST_GAP_S = 10.0
"""Two looks may be so far apart, or five sweeps, before the count of absence begins anew; in seconds."""

_LOOKS = 5
"""A host is counted from the first look that misses it, so there are a few in the time that is counted."""

Sightings = Mapping[str | None, Sighting]


class Hosts:
    """One reaper's eye on the hosts.

    Args:
        settings: which store, and when a host is lost.
    """

    def __init__(self, settings: ReaperSettings) -> None:
        gap = max(LEAST_GAP_S, 5 * settings.reap_interval)
        self._observer = observer_of(settings, settings.host_lost_after, gap)
        self._often = _often(settings)
        self._may_look: bool | None = None
        self._session = SessionLog("observer")

    def reload(self, settings: ReaperSettings) -> None:
        """Take over when a host is lost."""
        if self._observer is not None:
            self._observer.lost_after = settings.host_lost_after
        self._often = _often(settings)

    @property
    def due_in(self) -> float:
        """Seconds from the last look after which another one is wanted; infinity where none is."""
        if self._observer is None or not self._may_look:
            return math.inf
        return min(self._observer.due_in, self._often)

    async def look(self, *, dry_run: bool = False) -> Sightings | None:
        """Every host that was ever present; None where nothing is known of other hosts.

        Args:
            dry_run: write down and log nothing of it.
        """
        if self._observer is None or self._may_look is False:
            return None
        try:
            if self._may_look is None:
                self._may_look = await self._observer.may_look()
                if not self._may_look:
                    await self._observer.close()
                    return None
            sightings = await self._observer.look()
            lost, returned = ([], []) if dry_run else await self._observer.changes()
        except StoreUnavailable as error:
            self._session(str(error))
            return None
        self._session(None)
        for host in lost:
            emit("host.lost", host_uuid=host, absent_s=round(sightings[host].absent_for, 3))
        for back in returned:
            emit("host.returned", host_uuid=back.host_uuid, lost_s=round(back.lost_for, 3))
        return sightings

    async def aclose(self) -> None:
        """End the session."""
        if self._observer is not None:
            await self._observer.close()


def _often(settings: ReaperSettings) -> float:
    # Whoever wants his sweeps further apart than that has chosen to be told late.
    rare = settings.reap_interval > settings.host_lost_after
    return math.inf if rare else settings.host_lost_after / _LOOKS
