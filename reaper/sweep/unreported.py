"""Logs the ends that a killed process committed and could not log any more (`worker.logging.unreported`)."""

from typing import Final

from repo.base import OPEN, BaseRepository, Outcome
from worker.liveness.lock_directory import LockDirectory
from worker.logging.emit import emit, emit_end
from worker.logging.unreported import abandoned, ended_as_noted

# How nobody but the worker that claimed a row ends it.
_ITS_WORKER_S: Final[tuple[Outcome, ...]] = ("succeeded", "failed")


async def report_abandoned(repository: BaseRepository, directory: LockDirectory) -> None:
    """Write the lines that dead processes owe.

    Args:
        repository: the store, which knows how the rows ended.
        directory: where the notes are.

    Raises:
        StoreUnavailable: the notes stay for the next sweep.
    """
    with abandoned(directory) as notes:
        if not notes:
            return
        rows = {row["id"]: row for row in await repository.get_lifecycle_by_ids({key for key, _ in notes})}
        as_noted = {key for key, outcome in notes if key in rows and ended_as_noted(rows[key], outcome)}
        ended = [row for key, row in rows.items() if key in as_noted]
        found = await repository.get_lifecycle_by_ids(row["retry_id"] for row in ended if row["retry_id"])
        retries = {row["id"]: row for row in found}
        for row in ended:
            emit_end(row, row["outcome"] or "failed", error=row["error"], retry_id=row["retry_id"])
            if (retry := retries.get(row["retry_id"] or "")) is not None:
                emit("lifecycle.accepted", retry, started_at=retry["started_at"])
        # A server may still commit the end of a row that is open: a later sweep looks again. Of an end that a
        # sweep makes too, it couldn't tell whose it is: whoever ends that row logs it.
        is_open = (row["id"] for row in rows.values() if row["status"] in OPEN)
        notes &= {(key, outcome) for key in is_open for outcome in _ITS_WORKER_S}
