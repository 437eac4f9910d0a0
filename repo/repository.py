"""The repository: each call is one write handed to the group commit, or one read. Knows no database."""

import asyncio
import json
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar, cast

from repo import ids, validation
from repo import statements as sql
from repo.base import (
    ANY_HOST,
    CANCELLED,
    OPEN,
    BaseRepository,
    Claim,
    Deployed,
    DeployedDecky,
    Ending,
    Lifecycle,
    Operation,
    Outcome,
    Status,
    StoreIdentity,
)
from repo.engine import Engine, Statement, Step, Transaction, Values
from repo.errors import (
    DeckyBusy,
    InvalidLifecycle,
    LifecycleClosed,
    LifecycleExists,
    LifecycleNotFound,
    StoreUnusable,
    TransitionRefused,
)
from repo.group_commit import Found, GroupCommit, Refused, Write
from repo.models import to_iso

T = TypeVar("T")


class SqlRepository(BaseRepository):
    """The store of lifecycles in an SQL database. Used from the event loop that opened it.

    Args:
        engine: the database, not yet open.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writes: GroupCommit | None = None
        self._opened_in: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._session: AsyncGenerator[None] | None = None

    async def initialize(self) -> None:
        if self._session is None:
            session = _session(self._engine)
            await anext(session)
            self._session = session
            self._opened_in = os.getpid(), asyncio.get_running_loop()
            self._writes = GroupCommit(self._engine)
            # for a loop that ends without asyncgens having been shut down, at the latest at exit
            weakref.finalize(self, self._engine.abandon)

    async def close(self) -> None:
        session, self._session = self._session, None
        writes, self._writes = self._writes, None
        if session is None or writes is None or self._opened_in is None:
            return
        if self._opened_in == (os.getpid(), asyncio.get_running_loop()):
            await writes.finish()
            await session.aclose()
        else:
            self._engine.abandon()

    # ------------------------------------------------------------ accepting

    async def create_lifecycle(self, data: Mapping[str, Any]) -> str:
        row = validation.accepted(data)
        accepted = _Acceptance(row, sql.INSERT)

        async def otherwise(transaction: Transaction) -> str:
            await accepted.try_again(transaction)
            return accepted.id

        return await self._write(Write(accepted.given, accepted.steps, lambda _: accepted.id, otherwise))

    async def submit_lifecycle(self, data: Mapping[str, Any]) -> tuple[str, bool]:
        row = validation.accepted(data)
        row["host"] = sql.host_key(row["host_uuid"])
        accepted = _Acceptance(row, sql.INSERT_UNLESS_ASKED)

        async def otherwise(transaction: Transaction) -> tuple[str, bool]:
            if (asked := await transaction.first(sql.FIND_ASKED, row)) is not None:
                return asked["id"], asked["id"] == accepted.id
            await accepted.try_again(transaction)
            return accepted.id, True

        write = Write(accepted.given, accepted.steps, lambda _: (accepted.id, True), otherwise)
        return await self._write(write)

    async def retry_lifecycle(self, lifecycle_id: str) -> str:
        again: dict[str, str] = {"row_id": lifecycle_id, "next_id": "", "now": validation.now()}

        async def accept(transaction: Transaction) -> str:
            if transaction.repeats and await transaction.first(sql.STATE, {"row_id": again["next_id"]}):
                return again["next_id"]
            row = await _state(transaction, lifecycle_id)
            if row["status"] in OPEN:
                raise TransitionRefused(f"lifecycle {lifecycle_id} is {row['status']}: it may still succeed")
            if not row["has_payload"] and row["operation"] != "teardown":
                raise InvalidLifecycle(f"lifecycle {lifecycle_id}: its request is not known, submit it anew")
            await _follow_newest(transaction)
            again["next_id"] = ids.new_id()
            await _must(transaction, [Step(sql.AGAIN, again)])
            return again["next_id"]

        return await self._write(_by_itself("", accept))

    # ------------------------------------------------------------ changing

    async def update_lifecycle(self, lifecycle_id: str, fields: Mapping[str, Any]) -> None:
        values = validation.changed(fields)
        status = values.get("status")

        async def otherwise(transaction: Transaction) -> None:
            if await _is_written(transaction, lifecycle_id, values["updated_at"]):
                return
            row = await _open_state(transaction, lifecycle_id)
            if status == "pending":
                raise TransitionRefused(
                    f"lifecycle {lifecycle_id} is {row['status']}: it can't become pending"
                )
            raise _busy(lifecycle_id, row["decky_name"])

        steps = [Step(sql.update_open(frozenset(values), status), values | {"row_id": lifecycle_id})]
        await self._write(Write(lifecycle_id, lambda: steps, lambda _: None, otherwise))

    async def claim_lifecycle(self, lifecycle_id: str, owner: str) -> Claim | None:
        def claimed(row: Found) -> Claim | None:
            document, services = row.pop("document"), row.pop("services")
            deployed = None if document is None else Deployed(document, services)
            return Claim(cast("Lifecycle", row), deployed)

        async def otherwise(transaction: Transaction) -> Claim | None:
            if not await _is_written(transaction, lifecycle_id, row["now"]):
                return None
            found = await transaction.first(sql.CLAIMED, {"ids": json.dumps([lifecycle_id])})
            return claimed(found) if found is not None else None

        row = {"row_id": lifecycle_id, "by_owner": owner, "now": validation.now()}
        steps = [Step(sql.CLAIM, row)]
        return await self._write(Write(lifecycle_id, lambda: steps, claimed, otherwise, sql.CLAIMED))

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
    ) -> Ending:
        if error is not None and outcome == "succeeded":
            raise InvalidLifecycle("error: only a status of failed brings one")
        row: dict[str, Any] = {
            "row_id": lifecycle_id,
            "now": validation.now(),
            "expect": expect,
            "by_owner": owner,
            "to_status": "succeeded" if outcome == "succeeded" else "failed",
            "to_outcome": validation.check("outcome", outcome),
            "reason": None if error is None else validation.error_text(error),
            "keeps_outcome": int(outcome in {"succeeded", "failed"}),
            "next_id": ids.id_after(lifecycle_id) if retry else None,
        }
        steps = [Step(sql.END, row)]
        if deployed is not None:
            document = validation.to_json(deployed.document, "deployed.document")
            services = validation.to_json(list(deployed.services), "deployed.services")
            steps.append(Step(sql.DEPLOYED, row | {"document": document, "services": services}))
        if undeploy:
            steps.append(Step(sql.UNDEPLOYED, row, exactly_one=False))
        if retry:
            steps.append(Step(sql.RETRY, row))

        def ended(found: Found) -> Ending:
            more = True if retry else bool(found["more"])
            retried_at = to_iso(row["now"]) if retry else None
            return Ending(True, outcome, row["reason"], row["next_id"], retried_at, more)

        async def otherwise(transaction: Transaction) -> Ending:
            found = await _state(transaction, lifecycle_id)
            if await _is_written(transaction, lifecycle_id, row["now"]):
                was = found["outcome"]
                return ended({"more": True}) if was == outcome else Ending(True, was, found["error"])
            if found["status"] != expect or (expect == "running" and found["owner"] != owner):
                return Ending(False)
            if found["cancel_requested_at"] is not None and not row["keeps_outcome"]:
                cancelled = {"to_outcome": "cancelled", "reason": CANCELLED, "next_id": None}
                await _must(transaction, [Step(sql.END, row | cancelled | {"keeps_outcome": 1})])
                return Ending(True, "cancelled", CANCELLED)
            row["next_id"] = ids.new_id()  # what stands behind this id is taken
            await _must(transaction, [step._replace(values=step.values | row) for step in steps])  # type: ignore[operator]
            return ended({"more": True})

        ask = None if retry else sql.MORE
        return await self._write(Write(lifecycle_id, lambda: steps, ended, otherwise, ask))

    async def request_cancel(self, lifecycle_id: str) -> Status:
        row = {"row_id": lifecycle_id, "now": validation.now(), "reason": CANCELLED}

        async def cancel(transaction: Transaction) -> Status:
            if await _is_written(transaction, lifecycle_id, row["now"]):
                return (
                    "failed" if (await _state(transaction, lifecycle_id))["status"] == "failed" else "running"
                )
            if (await _open_state(transaction, lifecycle_id))["status"] == "running":
                await _must(transaction, [Step(sql.CANCEL_RUNNING, row)])
                return "running"
            await _must(transaction, [Step(sql.CANCEL_PENDING, row)])
            return "failed"

        return await self._write(_by_itself(lifecycle_id, cancel))

    async def record_delivery(self, lifecycle_id: str, deliveries: int) -> bool:
        async def otherwise(transaction: Transaction) -> bool:
            return await _is_written(transaction, lifecycle_id, row["now"])

        row: dict[str, Any] = {"row_id": lifecycle_id, "seen": deliveries, "now": validation.now()}
        steps = [Step(sql.NOTE_DELIVERY, row)]
        return await self._write(Write(lifecycle_id, lambda: steps, lambda _: True, otherwise))

    async def sweep_stale_lifecycle(
        self, older_than: datetime, reason: str, *, host_uuid: str | None = ANY_HOST
    ) -> int:
        values = {
            "older_than": validation.time("older_than", older_than),
            "reason": validation.error_text(reason),
            "now": validation.now(),
            "host": sql.host_key(host_uuid),
        }
        return await self._change(sql.SWEEP if host_uuid == ANY_HOST else sql.SWEEP_ON_HOST, values)

    async def prune_lifecycles(self, older_than: datetime, limit: int = 500) -> int:
        values = {"older_than": validation.time("older_than", older_than), "most": limit}
        return await self._change(sql.PRUNE, values)

    # ------------------------------------------------------------ reading

    async def find_cancelled(self, owner: str) -> list[str]:
        return [row["id"] for row in await self._rows(sql.FIND_CANCELLED, {"by_owner": owner})]

    async def get_lifecycle(self, lifecycle_id: str) -> Lifecycle | None:
        return await self._first(sql.BY_ID, {"row_id": lifecycle_id})

    async def get_lifecycle_by_ids(self, ids: Iterable[str]) -> list[Lifecycle]:
        return await self._rows(sql.BY_IDS, {"ids": json.dumps(list(ids))})

    async def find_open_lifecycle(
        self, decky_name: str, operation: str, host_uuid: str | None = None
    ) -> Lifecycle | None:
        statement = sql.FIND_OPEN if host_uuid is None else sql.FIND_OPEN_ON_HOST
        wanted = {"decky_name": decky_name, "operation": operation, "host": host_uuid}
        return await self._first(statement, wanted)

    async def find_next_lifecycle(self, decky_name: str, host_uuid: str | None) -> Lifecycle | None:
        return await self._first(sql.FIND_NEXT, _decky(decky_name, host_uuid))

    async def find_ready_lifecycles(self, host_uuid: str | None, limit: int) -> list[Lifecycle]:
        return await self._rows(sql.FIND_READY, {"host": sql.host_key(host_uuid), "most": limit})

    async def list_open_lifecycles(self, host_uuid: str | None = ANY_HOST) -> list[Lifecycle]:
        statement = sql.LIST_OPEN if host_uuid == ANY_HOST else sql.LIST_OPEN_ON_HOST
        return await self._rows(statement, {"host": sql.host_key(host_uuid)})

    async def list_lifecycles(
        self,
        *,
        statuses: Sequence[Status] = (),
        outcomes: Sequence[Outcome] = (),
        operation: Operation | None = None,
        decky_name: str | None = None,
        host_uuid: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[Lifecycle]:
        statement = sql.listing(
            statuses=statuses,
            outcomes=outcomes,
            operation=operation,
            decky_name=decky_name,
            host_uuid=host_uuid,
            since=None if since is None else validation.time("since", since),
            limit=limit,
        )
        return await self._rows(statement, {})

    async def get_deployed(self, decky_name: str, host_uuid: str | None) -> Deployed | None:
        row: Any = await self._first(sql.FIND_DEPLOYED, _decky(decky_name, host_uuid))
        return None if row is None else Deployed(row["document"], row["services"])

    async def list_deployed(
        self, *, host_uuid: str | None = ANY_HOST, decky_name: str | None = None
    ) -> list[DeployedDecky]:
        found: list[Any] = await self._rows(sql.deployed_deckies(host_uuid, decky_name), {})
        return [cast("DeployedDecky", {"host_uuid": row.pop("host") or None, **row}) for row in found]

    async def find_document(self, decky_name: str, host_uuid: str | None) -> dict[str, Any] | None:
        # One statement, so that a row that ends meanwhile is seen either way.
        found: list[Any] = await self._rows(sql.DOCUMENTS, _decky(decky_name, host_uuid))
        for row in sorted(found, key=lambda row: str(row["id"]), reverse=True):
            if row["operation"] == "teardown":
                return None
            asked = row["value"] or {}
            if (document := asked.get("compose") if row["operation"] else asked) is not None:
                return cast("dict[str, Any]", document)
        return None

    async def identify(self) -> StoreIdentity:
        self._opened()
        (row,) = await self._engine.rows(sql.STORE, {})
        return StoreIdentity(row["id"], self._engine.name)

    async def check(self) -> dict[str, str]:
        self._opened()
        return await self._engine.facts()

    # ------------------------------------------------------------ the engine

    async def _write(self, write: Write[T]) -> T:
        return await self._opened().write(write)

    async def _change(self, statement: Statement, values: Values) -> int:
        async def change(transaction: Transaction) -> int:
            return await transaction.change(statement, values)

        return await self._write(_by_itself("", change))

    async def _rows(self, query: Statement, values: Values) -> list[Lifecycle]:
        self._opened()
        return cast("list[Lifecycle]", await self._engine.rows(query, values))

    async def _first(self, query: Statement, values: Values) -> Lifecycle | None:
        return next(iter(await self._rows(query, values)), None)

    def _opened(self) -> GroupCommit:
        if self._writes is None or self._opened_in is None:
            raise StoreUnusable(f"{self._engine.name}: this repository is not open, call initialize() first")
        pid, loop = self._opened_in
        if pid != os.getpid():
            raise StoreUnusable("this repository was opened before a fork: open one in each process")
        if loop is not asyncio.get_running_loop():
            raise StoreUnusable("this repository was opened in another event loop: open one in each")
        return self._writes


async def _session(engine: Engine) -> AsyncGenerator[None]:
    """Open until it is closed: by `close`, or by the event loop, when nobody holds it or the loop ends."""
    await engine.open()
    try:
        yield
    finally:
        await engine.close()


class _Acceptance:
    """A row that is being accepted. Its id is made as late as can be, so that ids follow that order.

    Attributes:
        given: the id that the caller wants it to have, or "".
        id: the one that it got.
    """

    def __init__(self, row: dict[str, Any], statement: Statement) -> None:
        self._row = row
        self._statement = statement
        self.given: str = row["id"] or ""
        self.id = self.given
        self._taken = False

    def steps(self) -> list[Step]:
        """Insert it, if its id is the newest or was given."""
        self.id = self.id or ids.new_id()
        horizon = "" if self.given else ids.horizon(self.id)
        return [Step(self._statement, self._row | {"id": self.id, "horizon": horizon})]

    async def try_again(self, transaction: Transaction) -> None:
        """Say why it was refused, or give it an id behind one that came from a clock ahead of ours.

        Raises:
            LifecycleExists, DeckyBusy.
        """
        if (self.given or transaction.repeats) and await transaction.first(sql.STATE, {"row_id": self.id}):
            if transaction.repeats and not self._taken:
                return
            self._taken = True  # and not by this call, whatever becomes of the transaction
            raise LifecycleExists(f"lifecycle {self.given}: this id is taken")
        name, host_uuid = self._row["decky_name"], self._row["host_uuid"]
        if self._row["status"] == "running" and await transaction.first(
            sql.FIND_RUNNING, _decky(name, host_uuid)
        ):
            raise _busy(self.id, name)
        await _follow_newest(transaction)
        self.id = self.given or ids.new_id()
        await _must(transaction, self.steps())


def _by_itself(row: str, change: Callable[[Transaction], Awaitable[T]]) -> Write[T]:
    def never(_: Found) -> T:
        raise NotImplementedError

    return Write(row, tuple, never, change)


async def _must(transaction: Transaction, steps: Sequence[Step]) -> None:
    """Run them; whoever refused one was not there a moment ago, so all of it is tried again."""
    if not await transaction.run(steps):
        raise Refused


async def _is_written(transaction: Transaction, lifecycle_id: str, moment: str) -> bool:
    """Whether a row bears the stamp of this very write, whose commit was not answered."""
    wanted = {"row_id": lifecycle_id, "now": moment}
    return transaction.repeats and await transaction.first(sql.STAMPED, wanted) is not None


async def _follow_newest(transaction: Transaction) -> None:
    if (newest := await transaction.first(sql.FIND_NEWEST, {"horizon": ids.horizon()})) is not None:
        ids.follow(newest["id"])


def _decky(decky_name: str, host_uuid: str | None) -> dict[str, Any]:
    return {"decky_name": decky_name, "host": sql.host_key(host_uuid)}


def _busy(lifecycle_id: str, decky_name: str) -> DeckyBusy:
    return DeckyBusy(f"lifecycle {lifecycle_id}: another operation is running on {decky_name}")


async def _state(transaction: Transaction, lifecycle_id: str) -> Found:
    if (row := await transaction.first(sql.STATE, {"row_id": lifecycle_id})) is None:
        raise LifecycleNotFound(f"lifecycle {lifecycle_id}: no row has this id")
    return row


async def _open_state(transaction: Transaction, lifecycle_id: str) -> Found:
    row = await _state(transaction, lifecycle_id)
    if row["status"] not in OPEN:
        raise LifecycleClosed(f"lifecycle {lifecycle_id} is {row['status']}: nothing leaves a terminal row")
    return row
