"""What the calls that write have in common: rows that are looked at, and steps that must be taken."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from repo.base import (
    OPEN,
)
from repo.engine import Step, Transaction
from repo.errors import (
    DeckyBusy,
    LifecycleClosed,
    LifecycleNotFound,
)
from repo.lifecycle import host_key
from repo.repository import ids
from repo.repository.commit.group_commit import Found, Refused, Write
from repo.repository.prepared import reads, writes

T = TypeVar("T")


def by_itself(row: str, change: Callable[[Transaction], Awaitable[T]]) -> Write[T]:
    def never(_: Found) -> T:
        raise NotImplementedError

    return Write(row, tuple, never, change)


async def must(transaction: Transaction, steps: Sequence[Step]) -> None:
    """Run them; whoever refused one was not there a moment ago, so all of it is tried again."""
    if not await transaction.run(steps):
        raise Refused


async def is_written(transaction: Transaction, lifecycle_id: str, moment: str) -> bool:
    """Whether a row bears the stamp of this very write, whose commit was not answered."""
    wanted = {"row_id": lifecycle_id, "now": moment}
    return transaction.repeats and await transaction.first(reads.STAMPED, wanted) is not None


async def follow_newest(transaction: Transaction, ahead: int = 0) -> None:
    if (newest := await transaction.first(writes.FIND_NEWEST, {"horizon": ids.horizon()})) is not None:
        ids.follow(newest["id"], ahead)


def decky_key(decky_name: str, host_uuid: str | None) -> dict[str, Any]:
    return {"decky_name": decky_name, "host": host_key(host_uuid)}


def busy(lifecycle_id: str, decky_name: str) -> DeckyBusy:
    return DeckyBusy(f"lifecycle {lifecycle_id}: another operation is running on {decky_name}")


async def state(transaction: Transaction, lifecycle_id: str) -> Found:
    if (row := await transaction.first(reads.STATE, {"row_id": lifecycle_id})) is None:
        raise LifecycleNotFound(f"lifecycle {lifecycle_id}: no row has this id")
    return row


async def open_state(transaction: Transaction, lifecycle_id: str) -> Found:
    row = await state(transaction, lifecycle_id)
    if row["status"] not in OPEN:
        raise LifecycleClosed(f"lifecycle {lifecycle_id} is {row['status']}: nothing leaves a terminal row")
    return row
