"""The reads of those who look back: what ended, what stands around a row, figures by the hour."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from repo.lifecycle import ANY_HOST, Lifecycle, Operation, Outcome, Status


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


class History(ABC):
    """What ended, and in which order things were asked for."""

    @abstractmethod
    async def list_ended(
        self,
        *,
        statuses: Sequence[Status] = (),
        outcomes: Sequence[Outcome] = (),
        decky_name: str | None = None,
        host_uuid: str | None = ANY_HOST,
        operation: Operation | None = None,
        error: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
    ) -> list[Lifecycle]:
        """Terminal rows without payload, the latest end first; an empty filter means any.

        Args:
            statuses, outcomes, decky_name, operation: as `list_lifecycles` takes them.
            host_uuid: the rows of this host (None: the master's).
            error: text that the error contains, in small or capital letters. No index helps here: give
                `since` too.
            since, until: aware; the row ended then or later, and before.
            limit: at most so many rows.
        """

    @abstractmethod
    async def list_around(self, row: Lifecycle, limit: int) -> list[Lifecycle]:
        """The row, up to `limit` of its decky's rows before it and as many after, with payload, in order."""

    @abstractmethod
    async def hours(self, since: datetime) -> list[Hour]:
        """Figures of each hour (UTC) in which something ended at or after `since` (aware), oldest first."""
