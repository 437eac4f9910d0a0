"""The order of the operations on a decky: who takes its lock, and what is enqueued next.

Nobody waits for a lock. Whoever finds it held goes away, and whoever lets it go enqueues the decky's oldest
pending row, if he saw one when he ended his own.
"""

import asyncio
import time

from repo.base import OPEN, BaseRepository
from worker.liveness.locks import DeckyLock, DeckyLocks
from worker.queue import Delivery, Queue, QueueUnavailable

# How long a lock is waited for whose holder has ended its row, and how often it is tried, in seconds.
_LET_GO_S = 2.0
_LOOK_EVERY_S = 0.005


async def take_lock_in_order(
    repository: BaseRepository, locks: DeckyLocks, decky_name: str, host_uuid: str | None
) -> DeckyLock | None:
    """A decky's lock; None if it is held by somebody who is going to see the decky's next row.

    Raises:
        StoreUnavailable: the holder's row can't be read.
        LocksUnusable: the lock can't be opened.
    """
    give_up = time.monotonic() + _LET_GO_S
    while True:
        lock, holder = locks.try_lock_or_read(decky_name, host_uuid)
        if lock is not None or holder is None or time.monotonic() > give_up:
            return lock
        theirs = await repository.get_lifecycle(holder.lifecycle_id)
        if theirs is None or theirs["status"] in OPEN:
            return None
        # It looked for more before this row was there, and lets go any moment.
        await asyncio.sleep(_LOOK_EVERY_S)


async def enqueue_next(
    repository: BaseRepository, queue: Queue, decky_name: str, host_uuid: str | None
) -> None:
    """Enqueue the decky's oldest pending row, if it is not queued already. Redis away: the reaper does."""
    row = await repository.find_next_lifecycle(decky_name, host_uuid)
    if row is None or row["status"] != "pending":
        return
    try:
        latest = Delivery.latest(row)
        if latest.number and await queue.states([latest]) == ["queued"]:
            return
        if await repository.record_delivery(row["id"], row["deliveries"]):
            await queue.enqueue([latest.next()])
    except QueueUnavailable:
        return
