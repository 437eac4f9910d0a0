"""Logs the ends that a killed process committed and could not log any more (`worker.logging.unreported`)."""

from repo.base import BaseRepository
from worker.liveness.lock_directory import LockDirectory
from worker.logging.emit import emit, emit_end
from worker.logging.unreported import abandoned, ended_as_noted


async def report_abandoned(repository: BaseRepository, directory: LockDirectory) -> int:
    """Write the lines that dead processes owe.

    Args:
        repository: the store, which knows how the rows ended.
        directory: where the notes are.

    Returns:
        How many rows were logged.

    Raises:
        StoreUnavailable: the notes stay for the next sweep.
    """
    with abandoned(directory) as noted:
        if not noted:
            return 0
        rows = await repository.get_lifecycle_by_ids(noted)
        # One that is still open was never ended: whoever ends it logs it.
        ended = [row for row in rows if any(ended_as_noted(row, outcome) for outcome in noted[row["id"]])]
        found = await repository.get_lifecycle_by_ids(row["retry_id"] for row in ended if row["retry_id"])
        retries = {row["id"]: row for row in found}
        for row in ended:
            emit_end(row, row["outcome"] or "failed", error=row["error"], retry_id=row["retry_id"])
            if (retry := retries.get(row["retry_id"] or "")) is not None:
                emit("lifecycle.accepted", retry, started_at=retry["started_at"])
    return len(ended)
