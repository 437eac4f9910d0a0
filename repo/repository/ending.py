"""How a row ends: what is written for it, and what the caller gets where a step was refused."""

from typing import Literal, TypedDict

from repo.base import CANCELLED, Deployed, Ending, HostState, Outcome, Status
from repo.engine import Step, Transaction
from repo.errors import InvalidLifecycle
from repo.models import validation
from repo.models.times import to_iso
from repo.repository import ids
from repo.repository.commit.group_commit import Found, Write
from repo.repository.prepared import reads, writes
from repo.repository.steps import is_written, must, state


class _Values(TypedDict):
    row_id: str
    now: str
    expect: Literal["pending", "running"]
    by_owner: str | None
    to_status: Status
    to_outcome: Outcome
    reason: str | None
    keeps_outcome: int
    next_id: str | None


class RowEnd:
    """One row's end; the arguments are those of `BaseRepository.end_lifecycle`.

    Raises:
        InvalidLifecycle: a success with an error, or an outcome that there is not.
    """

    def __init__(
        self,
        lifecycle_id: str,
        outcome: Outcome,
        expect: Literal["pending", "running"],
        owner: str | None,
        error: str | None,
        if_host: HostState | None,
        *,
        retry: bool,
    ) -> None:
        if error is not None and outcome == "succeeded":
            raise InvalidLifecycle("error: only a status of failed brings one")
        validation.check("outcome", outcome)
        self._outcome, self._if_host, self._retry = outcome, if_host, retry
        self._row: _Values = {
            "row_id": lifecycle_id,
            "now": validation.now(),
            "expect": expect,
            "by_owner": owner,
            "to_status": "succeeded" if outcome == "succeeded" else "failed",
            "to_outcome": outcome,
            "reason": None if error is None else validation.error_text(error),
            "keeps_outcome": int(outcome in {"succeeded", "failed"}),
            "next_id": ids.id_after(lifecycle_id) if retry else None,
        }
        self._end = writes.END if if_host is None else writes.END_IF_HOST[if_host]
        self._steps = [Step(self._end, self._row)]

    def deploy(self, deployed: Deployed) -> None:
        """Note with it what the decky runs now."""
        document = validation.to_json(deployed.document, "deployed.document")
        services = validation.to_json(list(deployed.services), "deployed.services")
        self._steps.append(Step(writes.DEPLOYED, {**self._row, "document": document, "services": services}))

    def undeploy(self) -> None:
        """Note with it that the decky runs nothing now."""
        self._steps.append(Step(writes.UNDEPLOYED, self._row, exactly_one=False))

    def write(self) -> Write[Ending]:
        """All of it, as one write."""
        if self._retry:
            self._steps.append(Step(writes.RETRY, self._row))
        ask = None if self._retry else reads.MORE
        return Write(self._row["row_id"], lambda: self._steps, self._ended, self._otherwise, ask)

    def _ended(self, found: Found) -> Ending:
        row, more = self._row, self._retry or bool(found["more"])
        retried_at = to_iso(row["now"]) if self._retry else None
        return Ending(True, self._outcome, row["reason"], row["next_id"], retried_at, more)

    async def _otherwise(self, transaction: Transaction) -> Ending:
        row = self._row
        written = await is_written(transaction, row["row_id"], row["now"])
        is_host = None if written or self._if_host is None else reads.HOST_IS[self._if_host]
        if is_host is not None and await transaction.first(is_host, row) is None:
            return Ending(False)
        found = await state(transaction, row["row_id"])
        if written:
            was = found["outcome"]
            return self._ended({"more": True}) if was == self._outcome else Ending(True, was, found["error"])
        if found["status"] != row["expect"]:
            return Ending(False)
        if row["expect"] == "running" and found["owner"] != row["by_owner"]:
            return Ending(False)
        if found["cancel_requested_at"] is not None and not row["keeps_outcome"]:
            cancelled = {"to_outcome": "cancelled", "reason": CANCELLED, "next_id": None, "keeps_outcome": 1}
            await must(transaction, [Step(self._end, {**row, **cancelled})])
            return Ending(True, "cancelled", CANCELLED)
        row["next_id"] = ids.new_id()  # what stands behind this id is taken
        await must(transaction, [step._replace(values={**step.values, **row}) for step in self._steps])
        return self._ended({"more": True})
