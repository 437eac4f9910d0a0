"""What an operation may do to its decky: the runtime, under the row's deadline, with secrets masked."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from repo.base import Claim, Deployed
from worker.documents import document as documents
from worker.documents.masking import Mask
from worker.documents.policy import check_policy
from worker.execution.progress import MAX_LINE, Progress
from worker.execution.survivors import children_ended, end_survivors
from worker.liveness.locks import DeckyLock, Holder
from worker.logging.emit import emit
from worker.runtimes.base import SHORTAGES, OperationFailed, OperationTimedOut, Runtime
from worker.runtimes.subprocesses import to_the_end
from worker.settings import WorkerSettings

_SHORTAGE_PAUSE_S: Final = 1.0
_DEADLINE_GRAIN_S: Final = 1.0
"""A deadline that is less than this too early is not worth a write."""


class RowAtWork:
    """The work of one claimed row; see `worker.operations.base.Work`.

    Args:
        claim: the row, and what its decky runs.
        runtime: what does it.
        lock: the decky's, held; children of the runtime inherit it.
        settings: how long one call may take, and what a document may ask for.
        progress: takes the lines that the runtime prints.
    """

    def __init__(
        self, claim: Claim, runtime: Runtime, lock: DeckyLock, settings: WorkerSettings, progress: Progress
    ) -> None:
        self._row = claim.row
        self.deployed = claim.deployed
        self.decky_name: str = claim.row["decky_name"]
        self.payload: Mapping[str, Any] = claim.row["payload"] or {}
        self._runtime = runtime
        self._lock = lock
        self._time_limit = settings.operation_timeout
        self._policy = settings.document_policy
        self._progress = progress

    async def apply(self, wanted: Deployed) -> None:
        """Bring the decky to exactly this document and these services."""
        selected = documents.select(wanted.document, self.decky_name, wanted.services)
        check_policy(selected, self._policy)
        lock_fd = self._lock.fd
        await self._in_time(
            Mask(selected),
            lambda on_line: self._runtime.apply(
                self.decky_name, selected, lock_fd=lock_fd, on_line=on_line, operation=self._row["operation"]
            ),
        )

    async def remove(self) -> None:
        """Take the decky down."""
        mask = Mask(self.deployed.document if self.deployed else {})
        lock_fd = self._lock.fd
        await self._in_time(
            mask, lambda on_line: self._runtime.remove(self.decky_name, lock_fd=lock_fd, on_line=on_line)
        )

    async def _in_time(self, mask: Mask, act: Callable[[Callable[[str], None]], Awaitable[None]]) -> None:
        """Do it within its time; again while the machine has too little of what it takes to begin."""
        logged = False
        while shortage := await self._tried(mask, act):
            if not logged:
                emit("lifecycle.postponed", self._row, reason=f"{shortage}; it is tried again")
            logged = True
            await asyncio.sleep(_SHORTAGE_PAUSE_S)

    async def _tried(self, mask: Mask, act: Callable[[Callable[[str], None]], Awaitable[None]]) -> str:
        """Do it within its time; what was short, empty if nothing was."""
        set_deadline(self._lock, self._row["id"], self._row["owner"] or "", self._time_limit)

        before = children_ended()

        def on_line(line: str) -> None:
            line = mask(line)[:MAX_LINE]
            emit("runtime.output", lifecycle_id=self._row["id"], decky_name=self.decky_name, line=line)
            self._progress.line(self._row["id"], line)

        try:
            async with asyncio.timeout(self._time_limit) as timer:
                await act(on_line)
        except TimeoutError:
            if not timer.expired():
                raise  # the runtime's own, such as ETIMEDOUT
            raise OperationTimedOut(f"timed out after {self._time_limit:g} s") from None
        except OperationFailed as error:
            raise OperationFailed(mask(str(error))) from None
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            return os.strerror(error.errno)
        finally:
            # Whole: a cancel that comes now is told afterwards, or the row would end beside what is left.
            await to_the_end(end_survivors(self._row, self._lock, before))
        return ""


def set_deadline(lock: DeckyLock, lifecycle_id: str, owner: str, time_limit: float) -> None:
    """Write into the lock who holds it, and for how long at most from now on."""
    deadline = time.monotonic() + time_limit
    if deadline - lock.deadline >= _DEADLINE_GRAIN_S:
        lock.write(Holder(lifecycle_id, owner, deadline))
