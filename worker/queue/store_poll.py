"""While Redis is away, work goes on: what would have been enqueued is found in the store."""

import asyncio

from repo.base import BaseRepository
from repo.errors import StoreReplaced, StoreUnavailable
from worker.logging.emit import emit
from worker.queue.workers import QueueWorker

_SILENCE_S = 1.5
"""An idle worker hears from Redis every second; after so long without a word Redis is taken to be away."""
_EVERY_S = 1.0
"""Between two looks at the store."""


class StorePoll:
    """Has a worker run its host's pending rows, while it can't have them from Redis.

    Nothing runs twice when Redis is back with the jobs of the same rows: the claim in the store admits one.

    Args:
        repository: the store.
        worker: runs them, in the slots that it has free.
        host_uuid: whose rows; None is the master's.
    """

    def __init__(self, repository: BaseRepository, worker: QueueWorker, host_uuid: str | None) -> None:
        self._repository = repository
        self._worker = worker
        self._host_uuid = host_uuid
        self._store_away = False
        self._tried: set[str] = set()

    async def run(self) -> None:
        """Until cancelled.

        Raises:
            StoreReplaced: another file is where the store was.
        """
        while True:
            await self._worker.silence(_SILENCE_S)
            await self._poll()
            await asyncio.sleep(_EVERY_S)

    async def _poll(self) -> None:
        if (room := self._worker.room) <= 0:
            return
        try:
            rows = await self._repository.find_ready_lifecycles(self._host_uuid, room + len(self._tried))
        except StoreReplaced:
            raise
        except StoreUnavailable as error:
            if not self._store_away:
                emit("store.unavailable", reason=str(error))
            self._store_away = True
            return
        self._store_away = False
        # A row whose lock is held by what is no operation comes back: it must keep no other row waiting.
        self._tried &= {row["id"] for row in rows}
        for row in sorted(rows, key=lambda row: row["id"] in self._tried):
            if self._worker.start(row["operation"], row["id"], row["decky_name"]):
                self._tried.add(row["id"])
