"""The calls that write."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, cast

from repo.base import (
    ANY_HOST,
    CANCELLED,
    OPEN,
    Claim,
    Deployed,
    Ending,
    HostState,
    Lifecycle,
    Outcome,
    Status,
)
from repo.engine import Step, Transaction
from repo.errors import (
    InvalidLifecycle,
    TransitionRefused,
)
from repo.lifecycle import host_key
from repo.models import validation
from repo.models.statement import Statement, Values
from repo.repository import ids
from repo.repository.acceptance import Acceptance
from repo.repository.commit.group_commit import Found, Write
from repo.repository.ending import end_of
from repo.repository.prepared import reads, writes
from repo.repository.reads import Reads
from repo.repository.steps import busy, by_itself, follow_newest, is_written, must, open_state, state


class SqlRepository(Reads):
    """The store of lifecycles in an SQL database. Used from the event loop that opened it.

    Args:
        engine: the database, not yet open.
    """

    # ------------------------------------------------------------ accepting

    async def create_lifecycle(self, data: Mapping[str, Any]) -> str:
        row = validation.accepted(data)
        accepted = Acceptance(row, writes.INSERT)

        async def otherwise(transaction: Transaction) -> str:
            await accepted.try_again(transaction)
            return accepted.id

        return await self._write(Write(accepted.given, accepted.steps, lambda _: accepted.id, otherwise))

    async def submit_lifecycle(self, data: Mapping[str, Any], *, durable: bool = True) -> tuple[str, bool]:
        row = validation.accepted(data)
        row["host"] = host_key(row["host_uuid"])
        accepted = Acceptance(row, writes.INSERT_UNLESS_ASKED)

        async def otherwise(transaction: Transaction) -> tuple[str, bool]:
            if (asked := await transaction.first(writes.FIND_ASKED, row)) is not None:
                return asked["id"], asked["id"] == accepted.id
            await accepted.try_again(transaction)
            return accepted.id, True

        write = Write(
            accepted.given, accepted.steps, lambda _: (accepted.id, True), otherwise, durable=durable
        )
        return await self._write(write)

    async def retry_lifecycle(self, lifecycle_id: str) -> str:
        again: dict[str, str] = {"row_id": lifecycle_id, "next_id": "", "now": validation.now()}

        async def accept(transaction: Transaction) -> str:
            if transaction.repeats and await transaction.first(reads.STATE, {"row_id": again["next_id"]}):
                return again["next_id"]
            row = await state(transaction, lifecycle_id)
            if row["status"] in OPEN:
                raise TransitionRefused(f"lifecycle {lifecycle_id} is {row['status']}: it may still succeed")
            if not row["has_payload"] and row["operation"] != "teardown":
                raise InvalidLifecycle(f"lifecycle {lifecycle_id}: its request is not known, submit it anew")
            await follow_newest(transaction)
            again["next_id"] = ids.new_id()
            await must(transaction, [Step(writes.AGAIN, again)])
            return again["next_id"]

        return await self._write(by_itself("", accept))

    # ------------------------------------------------------------ changing

    async def update_lifecycle(self, lifecycle_id: str, fields: Mapping[str, Any]) -> None:
        values = validation.changed(fields)
        status = values.get("status")

        async def otherwise(transaction: Transaction) -> None:
            if await is_written(transaction, lifecycle_id, values["updated_at"]):
                return
            row = await open_state(transaction, lifecycle_id)
            if status == "pending":
                raise TransitionRefused(
                    f"lifecycle {lifecycle_id} is {row['status']}: it can't become pending"
                )
            raise busy(lifecycle_id, row["decky_name"])

        steps = [Step(writes.update_open(frozenset(values), status), values | {"row_id": lifecycle_id})]
        await self._write(Write(lifecycle_id, lambda: steps, lambda _: None, otherwise))

    async def claim_lifecycle(
        self, lifecycle_id: str, owner: str, *, decky: tuple[str, str | None] | None = None
    ) -> Claim | None:
        now = validation.now()

        def claimed(row: Found) -> Claim | None:
            document, services = row.pop("document"), row.pop("services")
            deployed = None if document is None else Deployed(document, services)
            return Claim(cast("Lifecycle", row), deployed)

        async def otherwise(transaction: Transaction) -> Claim | None:
            if not await is_written(transaction, lifecycle_id, now):
                return None
            found = await transaction.first(reads.CLAIMED, {"ids": json.dumps([lifecycle_id])})
            return claimed(found) if found is not None else None

        name, host = (None, None) if decky is None else (decky[0], host_key(decky[1]))
        row = {"row_id": lifecycle_id, "by_owner": owner, "of_decky": name, "of_host": host, "now": now}
        steps = [Step(writes.CLAIM, row)]
        write = Write(lifecycle_id, lambda: steps, claimed, otherwise, reads.CLAIMED, durable=False)
        return await self._write(write)

    async def end_lifecycle(
        self,
        lifecycle_id: str,
        *,
        outcome: Outcome,
        expect: Literal["pending", "running"] = "running",
        owner: str | None = None,
        error: str | None = None,
        deployed: Deployed | None = None,
        undeploy: bool = False,
        retry: bool = False,
        if_host: HostState | None = None,
    ) -> Ending:
        end = end_of(
            lifecycle_id,
            outcome=outcome,
            expect=expect,
            owner=owner,
            error=error,
            deployed=deployed,
            undeploy=undeploy,
            retry=retry,
            if_host=if_host,
        )
        return await self._write(end)

    async def request_cancel(self, lifecycle_id: str) -> Status:
        row = {"row_id": lifecycle_id, "now": validation.now(), "reason": CANCELLED}

        async def cancel(transaction: Transaction) -> Status:
            if await is_written(transaction, lifecycle_id, row["now"]):
                return (
                    "failed" if (await state(transaction, lifecycle_id))["status"] == "failed" else "running"
                )
            if (await open_state(transaction, lifecycle_id))["status"] == "running":
                await must(transaction, [Step(writes.CANCEL_RUNNING, row)])
                return "running"
            await must(transaction, [Step(writes.CANCEL_PENDING, row)])
            return "failed"

        return await self._write(by_itself(lifecycle_id, cancel))

    async def record_delivery(self, lifecycle_id: str, deliveries: int) -> bool:
        async def otherwise(transaction: Transaction) -> bool:
            return await is_written(transaction, lifecycle_id, row["now"])

        row: dict[str, Any] = {"row_id": lifecycle_id, "seen": deliveries, "now": validation.now()}
        steps = [Step(writes.NOTE_DELIVERY, row)]
        return await self._write(Write(lifecycle_id, lambda: steps, lambda _: True, otherwise))

    async def sweep_stale_lifecycle(
        self, older_than: datetime, reason: str, *, host_uuid: str | None = ANY_HOST
    ) -> int:
        values = {
            "older_than": validation.time("older_than", older_than),
            "reason": validation.error_text(reason),
            "now": validation.now(),
            "host": host_key(host_uuid),
        }
        return await self._change(writes.SWEEP if host_uuid == ANY_HOST else writes.SWEEP_ON_HOST, values)

    async def prune_lifecycles(self, older_than: datetime, limit: int = 500) -> int:
        values = {"older_than": validation.time("older_than", older_than), "most": limit}
        self._opened()
        return await self._change(writes.PRUNE, values) if self._engine.prunes else 0

    async def _change(self, statement: Statement, values: Values) -> int:
        async def change(transaction: Transaction) -> int:
            return await transaction.change(statement, values)

        return await self._write(by_itself("", change))
