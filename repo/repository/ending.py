"""How a row ends: what is written for it, and what the caller gets where a step was refused."""

from typing import Any, Literal

from repo.base import CANCELLED, Deployed, Ending, HostState, Outcome
from repo.engine import Step, Transaction
from repo.errors import InvalidLifecycle
from repo.models import validation
from repo.models.times import to_iso
from repo.repository import ids
from repo.repository.commit.group_commit import Found, Write
from repo.repository.prepared import reads, writes
from repo.repository.steps import is_written, must, state


def end_of(
    lifecycle_id: str,
    *,
    outcome: Outcome,
    expect: Literal["pending", "running"],
    owner: str | None,
    error: str | None,
    deployed: Deployed | None,
    undeploy: bool,
    retry: bool,
    if_host: HostState | None,
) -> Write[Ending]:
    """One row's end, as one write; the arguments are those of `BaseRepository.end_lifecycle`.

    Raises:
        InvalidLifecycle: a success with an error, or an outcome that there is not.
    """
    if error is not None and outcome == "succeeded":
        raise InvalidLifecycle("error: only a status of failed brings one")
    validation.check("outcome", outcome)
    row: dict[str, Any] = {
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
    end = writes.END if if_host is None else writes.END_IF_HOST[if_host]
    steps = [Step(end, row)]
    if deployed is not None:
        document = validation.to_json(deployed.document, "deployed.document")
        services = validation.to_json(list(deployed.services), "deployed.services")
        steps.append(Step(writes.DEPLOYED, {**row, "document": document, "services": services}))
    if undeploy:
        steps.append(Step(writes.UNDEPLOYED, row, exactly_one=False))
    if retry:
        steps.append(Step(writes.RETRY, row))

    def ended(found: Found) -> Ending:
        retried_at = to_iso(row["now"]) if retry else None
        return Ending(True, outcome, row["reason"], row["next_id"], retried_at, retry or bool(found["more"]))

    async def otherwise(transaction: Transaction) -> Ending:
        written = await is_written(transaction, lifecycle_id, row["now"])
        is_host = None if written or if_host is None else reads.HOST_IS[if_host]
        if is_host is not None and await transaction.first(is_host, row) is None:
            return Ending(False)
        found = await state(transaction, lifecycle_id)
        if written:
            was = found["outcome"]
            return ended({"more": True}) if was == outcome else Ending(True, was, found["error"])
        if found["status"] != expect:
            return Ending(False)
        if expect == "running" and found["owner"] != owner:
            return Ending(False)
        if found["cancel_requested_at"] is not None and not row["keeps_outcome"]:
            cancelled = {"to_outcome": "cancelled", "reason": CANCELLED, "next_id": None, "keeps_outcome": 1}
            await must(transaction, [Step(end, {**row, **cancelled})])
            return Ending(True, "cancelled", CANCELLED)
        row["next_id"] = ids.new_id()  # what stands behind this id is taken
        await must(transaction, [step._replace(values={**step.values, **row}) for step in steps])
        return ended({"more": True})

    return Write(lifecycle_id, lambda: steps, ended, otherwise, None if retry else reads.MORE)
