"""The reads of those who look back: what ended, what stands around a row, figures by the hour."""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import NamedTuple, Unpack

from repo.lifecycle import Filter, Lifecycle


class Spread(NamedTuple):
    """The median and the 99th percentile (nearest rank) of a time, in seconds."""

    p50: float
    p99: float


class Hour(NamedTuple):
    """What ended within one hour.

    Attributes:
        begins: ISO 8601, UTC.
        outcomes: how many rows by outcome; by status where a row has none.
        wait: from acceptance to claim; None if nothing was claimed.
        took: from claim to end; None if nothing was claimed.
    """

    begins: str
    outcomes: dict[str, int]
    wait: Spread | None
    took: Spread | None


class EndedFilter(Filter, total=False):
    """Which rows that have ended: as `Filter`, but None is a host, and times are those of the end.

    host_uuid: this one; None is the master's own, ANY_HOST or missing any.
    error: text that the error contains, in small or capital letters. No index helps here: give `since` too.
    since, until: ended then or later, and before; aware.
    """

    error: str
    until: datetime | None


class History(ABC):
    """What ended, and in which order things were asked for."""

    @abstractmethod
    async def list_ended(self, **wanted: Unpack[EndedFilter]) -> list[Lifecycle]:
        """Terminal rows without payload, the latest end first."""

    @abstractmethod
    async def list_around(self, row: Lifecycle, limit: int) -> list[Lifecycle]:
        """The row, up to `limit` of its decky's rows before it and as many after, with payload, in order."""

    @abstractmethod
    async def hours(self, since: datetime) -> list[Hour]:
        """Figures of each hour (UTC) in which something ended at or after `since` (aware), oldest first."""
