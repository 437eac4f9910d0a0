"""Ends what an operation leaves behind with its decky's lock in hand, whatever became of the operation.

The runtime ends what it started; this is for what slipped away from it, into a session of its own.
"""

import asyncio
import os
import resource
from typing import Final

from repo.base import Lifecycle
from worker.liveness.holders import Hold, end_holder
from worker.liveness.locks import DeckyLock
from worker.logging.emit import emit
from worker.runtimes.base import SHORTAGES

Children = resource.struct_rusage

_LOOK_EVERY_S: Final = 0.02
_NO_THREAD: Final = "can't start new thread"
"""What Python says where the machine has none left for us: its RuntimeError has no number."""


def children_ended() -> Children:
    """What all children that were waited for have used: each one that ends makes it more."""
    return resource.getrusage(resource.RUSAGE_CHILDREN)


async def end_survivors(row: Lifecycle, lock: DeckyLock, before: Children) -> None:
    """Return once no other process holds the row's lock.

    Args:
        row: whose operation it was.
        lock: its decky's.
        before: `children_ended` when it began.
    """
    # Without a child nothing was inherited; a look at all processes takes milliseconds.
    if children_ended() == before and _has_no_child():
        return
    told: set[int] = set()
    while holds := await _survivors(lock):
        if ended := [hold.pid for hold in holds if _end(hold) and hold.pid not in told]:
            told.update(ended)  # a killed process may hold it for a while yet
            emit("lifecycle.survivors_ended", row, pids=ended)
        await asyncio.sleep(_LOOK_EVERY_S)


def _has_no_child() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _end(hold: Hold) -> bool:
    try:
        return end_holder(hold)
    except OSError as error:
        if error.errno not in SHORTAGES:
            raise
        return False  # it is found again in the next look


async def _survivors(lock: DeckyLock) -> list[Hold]:
    while True:
        try:
            # In a thread, since all processes of the machine are looked at.
            return await asyncio.to_thread(lock.survivors)
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise  # else there was no descriptor to look with: nobody may be taken for gone
        except RuntimeError as error:
            if str(error) != _NO_THREAD:
                raise
        await asyncio.sleep(_LOOK_EVERY_S)
