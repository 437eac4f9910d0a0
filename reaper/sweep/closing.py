"""Closes rows: the write, and the lines that tell of it."""

from reaper.sweep.report import Report
from reaper.sweep.rules import Action
from repo.base import BaseRepository, HostState, Lifecycle
from repo.errors import StoreUnavailable
from worker.execution.executor import log_end
from worker.liveness.lock_directory import LockDirectory
from worker.logging.unreported import Unreported


class Closing:
    """Ends rows as the rules say.

    Args:
        repository: the store.
        directory: where it is noted which rows are being closed, so that none is closed in silence.
    """

    def __init__(self, repository: BaseRepository, directory: LockDirectory) -> None:
        self._repository = repository
        self._unreported = Unreported(directory)

    async def fail(
        self, row: Lifecycle, action: Action, report: Report, *, if_host: HostState | None
    ) -> bool:
        """Close a row as failed, if it still is as it was seen.

        Args:
            row: which.
            action: as what, and whether a retry is accepted.
            report: counts it.
            if_host: only while the row's host is that.

        Returns:
            Whether a retry was accepted.

        Raises:
            StoreUnavailable: nothing was written.
        """
        self._unreported.begin(row["id"], action.outcome)
        try:
            ending = await self._repository.end_lifecycle(
                row["id"],
                outcome=action.outcome,
                expect="pending" if row["status"] == "pending" else "running",
                owner=row["owner"],
                error=action.error,
                retry=action.retry,
                if_host=if_host,
            )
        except StoreUnavailable:
            self._unreported.done(row["id"])  # nothing was written: whoever ends it logs it
            raise
        if ending.applied:
            report.actions.append((row, action))
            report.counts["failed"] += 1
            report.counts["retried"] += ending.retry_id is not None
            log_end(row, ending)
        self._unreported.done(row["id"])
        return ending.retry_id is not None
