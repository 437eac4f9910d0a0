"""What goes on now, looked at once a second for all who watch."""

import asyncio
import time
from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from repo.base import BaseRepository, Lifecycle
from repo.errors import StoreError, StoreReplaced
from repo.history import Hour
from worker.queue import Queue, QueueUnavailable

_EVERY_S: Final = 1.0
_FIGURES_S: Final = 30.0
_HOURS: Final = 24
_LINES: Final = 30
"""Lines of one operation that are kept: what it said when it was looked at."""
_OPERATIONS: Final = 2000
"""Operations whose lines are kept, those that ended too."""


class Health(NamedTuple):
    """Whether something can be used.

    Attributes:
        up: None before the first look.
        since: when that began, ISO 8601; of what was up at the first look, when that was.
        reason: why it can't be used.
    """

    up: bool | None = None
    since: str = ""
    reason: str = ""

    def now(self, reason: str = "") -> "Health":
        """The same after another look; with a reason, it can't be used."""
        up = not reason
        return Health(up, self.since if up is self.up else _now(), reason)


class Figures(NamedTuple):
    """What is counted now and then.

    Attributes:
        hours: of the last day, oldest first; hours in which nothing ended are left out.
        deckies: how many each host runs; None is the master's own.
    """

    hours: list[Hour]
    deckies: Counter[str | None]


class Watcher:
    """Looks at the store and the queue once a second.

    Args:
        repository: the store.
        queue: the queue.

    Attributes:
        open_rows: every open row, in the order of ids.
        present: whether each host is there; None where the store can't know, as on one machine.
        store, queue_health: whether they can be used.
        counted: the figures as they were counted last; None before the first time.
        ends: counts looks at which something had ended.
        stopped: whether who watches is to go.
    """

    def __init__(self, repository: BaseRepository, queue: Queue) -> None:
        self.repository = repository
        self.open_rows: list[Lifecycle] = []
        self.present: dict[str | None, bool] | None = None
        self.store = Health()
        self.queue_health = Health()
        self.ends = 0
        self.counted: Figures | None = None
        self.stopped = False
        self._queue = queue
        self._latest: tuple[str, str | None] | None = None
        self._lines: dict[str, deque[tuple[str, str]]] = {}
        self._news = asyncio.Event()
        self._counted_at = 0.0
        self._final_until = datetime.min.replace(tzinfo=UTC)
        self._counting = asyncio.Lock()

    async def watch_store(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> None:
        """Look once at the rows, and wake those who wait for news."""
        try:
            rows = await self.repository.list_open_lifecycles()
            latest = await self.repository.list_ended(limit=1)
            hosts = {host["host_uuid"]: host["present"] for host in await self.repository.list_hosts()}
        except StoreReplaced:
            raise  # the daemon ends; whoever starts it again has the new one used
        except StoreError as error:
            self.store = self.store.now(str(error))
        else:
            found = (latest[0]["id"], latest[0]["completed_at"]) if latest else None
            if {row["id"] for row in self.open_rows} - {row["id"] for row in rows} or found != self._latest:
                self.ends += 1
            self.open_rows, self._latest, self.present = rows, found, hosts or None
            self.store = self.store.now()
        self._wake()

    async def watch_queue(self) -> None:
        """Look for ever at what operations say; apart from the store, since a frozen Redis takes seconds."""
        while True:
            try:
                await self._queue.ping()
                await self._read_lines()
                self.queue_health = self.queue_health.now()
            except QueueUnavailable as error:
                self.queue_health = self.queue_health.now(str(error))
            await asyncio.sleep(_EVERY_S)

    async def news(self) -> bool:
        """Wait for the next look; False when there will be none."""
        await self._news.wait()
        return not self.stopped

    def stop(self) -> None:
        """Send those who wait for news home."""
        self.stopped = True
        self._wake()

    def lines(self, lifecycle_id: str) -> list[tuple[str, str]]:
        """What an operation said when it was looked at, and when that was."""
        return [*self._lines.get(lifecycle_id, ())]

    async def figures(self) -> Figures:
        """Figures that are at most half a minute old.

        Raises:
            StoreError: the store can't be read.
        """
        async with self._counting:
            if self.counted is None or time.monotonic() - self._counted_at > _FIGURES_S:
                hours = await self._count_hours()
                deckies = Counter(each["host_uuid"] for each in await self.repository.list_deployed())
                self.counted, self._counted_at = Figures(hours, deckies), time.monotonic()
            return self.counted

    async def _count_hours(self) -> list[Hour]:
        """The last day by the hour; what was over an hour before the last count is not counted again."""
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        since = max(hour - timedelta(hours=_HOURS - 1), self._final_until)
        kept = (
            [each for each in self.counted.hours if each.begins < since.isoformat()] if self.counted else []
        )
        hours = [*kept, *await self.repository.hours(since)]
        self._final_until = hour - timedelta(hours=1)
        return [each for each in hours if each.begins > (hour - timedelta(hours=_HOURS)).isoformat()]

    async def _read_lines(self) -> None:
        hosts: dict[str | None, list[str]] = {}
        for row in self.open_rows:
            if row["status"] == "running":
                hosts.setdefault(row["host_uuid"], []).append(row["id"])
        for host_uuid, ids in hosts.items():
            for lifecycle_id, line in (await self._queue.lines(host_uuid, ids)).items():
                lines = self._lines.setdefault(lifecycle_id, deque(maxlen=_LINES))
                if not lines or lines[-1][1] != line:
                    lines.append((_now(), line))
        for forgotten in [*self._lines][: max(0, len(self._lines) - _OPERATIONS)]:
            del self._lines[forgotten]

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
        if self.stopped:
            self._news.set()


def _now() -> str:
    return datetime.now(UTC).isoformat()
