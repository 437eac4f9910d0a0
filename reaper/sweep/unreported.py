"""Logs the ends that a killed process committed and could not log any more (`worker.logging.unreported`)."""

from datetime import datetime
from pathlib import Path

from repo.base import BaseRepository, Outcome, Row
from repo.ids import id_after
from worker.logging.events import emit, emit_end
from worker.logging.unreported import abandoned


async def tell_untold(repository: BaseRepository, runtime_dir: Path) -> int:
    """Write the lines that dead processes owe.

    Args:
        repository: the store, which knows how the rows ended.
        runtime_dir: where the ledgers are.

    Returns:
        How many rows were told.

    Raises:
        StoreUnavailable: the ledgers stay for the next pass.
    """
    with abandoned(runtime_dir) as untold:
        if not untold:
            return 0
        found = await repository.get_lifecycle_by_ids([*untold, *map(id_after, untold)])
        rows = {row["id"]: row for row in found}
        told = 0
        for lifecycle_id, notes in untold.items():
            row = rows.get(lifecycle_id)
            # One that is still open was never ended: whoever ends it tells it.
            if row is not None and (fitting := next((note for note in notes if note.fits(row)), None)):
                _tell(row, fitting.outcome, rows.get(id_after(lifecycle_id)))
                told += 1
    return told


def _tell(row: Row, outcome: Outcome, behind: Row | None) -> None:
    retry = behind if behind is not None and behind["retry_of"] == row["id"] else None
    claimed = row["claimed_at"]
    emit_end(
        row,
        outcome,
        owner=row["owner"],
        queue_wait_s=None if claimed is None else _seconds(row["started_at"], claimed),
        duration_s=None if claimed is None else _seconds(claimed, row["completed_at"] or row["updated_at"]),
        error=row["error"],
        retry_id=None if retry is None else retry["id"],
    )
    if retry is not None:
        emit("lifecycle.accepted", retry, started_at=retry["started_at"])


def _seconds(since: str, until: str) -> float:
    took = datetime.fromisoformat(until) - datetime.fromisoformat(since)
    return max(0.0, round(took.total_seconds(), 3))
