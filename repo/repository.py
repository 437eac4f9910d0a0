"""The repository on SQLAlchemy Core: each call is one write handed to the group commit, or one read."""

import asyncio
import json
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar, cast

from sqlalchemy import Connection

from repo import statements as sql
from repo import validation
from repo.base import (
    ANY_HOST,
    CANCELLED,
    OPEN,
    BaseRepository,
    Claim,
    Deployed,
    DeployedDecky,
    Ending,
    Operation,
    Outcome,
    Status,
)
from repo.base import (
    Lifecycle as Row,
)
from repo.errors import (
    DeckyBusy,
    InvalidLifecycle,
    LifecycleClosed,
    LifecycleExists,
    LifecycleNotFound,
    StoreUnusable,
    TransitionRefused,
)
from repo.group_commit import Write
from repo.ids import id_after, new_id
from repo.models import VERSION_TABLE, to_iso
from repo.sqlite.connection import SqliteFile
from repo.sqlite.prepared import Query
from repo.sqlite.store import Store

T = TypeVar("T")


class SqlRepository(BaseRepository):
    """The store of lifecycles in an SQLite file. May be used from several event loops at once."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._store: Store | None = None
        self._end: weakref.finalize[..., Any] | None = None

    async def initialize(self) -> None:
        if self._store is None:
            self._store = await asyncio.to_thread(Store, self._file)
            # for whoever forgets close(), at the latest when the interpreter exits
            self._end = weakref.finalize(self, self._store.close, timeout=5.0)

    async def close(self) -> None:
        store, self._store = self._store, None
        if store is not None and self._end is not None:
            self._end.detach()
            await asyncio.to_thread(store.close)

    async def create_lifecycle(self, data: Mapping[str, Any]) -> str:
        row = validation.accepted(data)
        lifecycle_id: str = row["id"]

        def refused(connection: Connection) -> str:
            if sql.STATE.first(connection, {"row_id": lifecycle_id}) is None:
                raise DeckyBusy(
                    f"lifecycle {lifecycle_id}: another operation is running on {row['decky_name']}"
                )
            raise LifecycleExists(f"lifecycle {lifecycle_id}: this id is taken")

        return await self._write(Write(lifecycle_id, [(sql.INSERT, row)], lambda _: lifecycle_id, refused))

    async def submit_lifecycle(self, data: Mapping[str, Any]) -> tuple[str, bool]:
        row = validation.accepted(data)
        row["host"] = sql.host_key(row["host_uuid"])
        lifecycle_id: str = row["id"]

        def refused(connection: Connection) -> tuple[str, bool]:
            asked = sql.FIND_ASKED.first(connection, row)
            if asked is None:
                raise LifecycleExists(f"lifecycle {lifecycle_id}: this id is taken")
            return asked["id"], False

        steps = [(sql.INSERT_UNLESS_ASKED, row)]
        return await self._write(Write(lifecycle_id, steps, lambda _: (lifecycle_id, True), refused))

    async def update_lifecycle(self, lifecycle_id: str, fields: Mapping[str, Any]) -> None:
        values = validation.changed(fields)
        status = values.get("status")

        def refused(connection: Connection) -> None:
            found, decky_name = _open_state(connection, lifecycle_id)
            if status == "pending":
                raise TransitionRefused(f"lifecycle {lifecycle_id} is {found}: it can't become {status}")
            raise DeckyBusy(f"lifecycle {lifecycle_id}: another operation is running on {decky_name}")

        steps = [(sql.update_open(frozenset(values), status), values | {"row_id": lifecycle_id})]
        await self._write(Write(lifecycle_id, steps, lambda _: None, refused))

    async def claim_lifecycle(self, lifecycle_id: str, owner: str) -> Claim | None:
        steps = [(sql.CLAIM, {"row_id": lifecycle_id, "by_owner": owner, "now": validation.now()})]

        def claimed(connection: Connection) -> Claim | None:
            if (row := sql.CLAIMED.first(connection, {"row_id": lifecycle_id})) is None:
                return None
            found: dict[str, Any] = {**row}
            document, services = found.pop("document"), found.pop("services")
            return Claim(cast("Row", found), None if document is None else Deployed(document, services))

        return await self._write(Write(lifecycle_id, steps, claimed, lambda _: None))

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
        now = validation.now()
        reason = None if error is None else validation.error_text(error)
        row: dict[str, Any] = {"row_id": lifecycle_id, "now": now, "expect": expect, "by_owner": owner}
        row |= {
            "to_status": "succeeded" if outcome == "succeeded" else "failed",
            "to_outcome": outcome,
            "reason": reason,
            "next_id": id_after(lifecycle_id) if retry else None,
            "whatever_cancelled": outcome in {"succeeded", "failed"},
        }
        steps = [(sql.END, row)]
        if deployed is not None:
            document = validation.to_json(deployed.document, "deployed.document")
            services = validation.to_json(list(deployed.services), "deployed.services")
            steps.append((sql.DEPLOYED, row | {"document": document, "services": services}))
        if retry:
            steps.append((sql.RETRY, row))

        def refused(connection: Connection) -> Ending:
            found = _found(connection, lifecycle_id)
            if found["status"] != expect or (expect == "running" and found["owner"] != owner):
                return Ending(False)
            if found["cancel_requested_at"] is not None and not row["whatever_cancelled"]:
                cancelled = {"to_outcome": "cancelled", "reason": CANCELLED, "next_id": None}
                sql.END.run(connection, [sql.END.parameters(row | cancelled | {"whatever_cancelled": True})])
                return Ending(True, "cancelled", CANCELLED, more=True)
            row["next_id"] = new_id()  # the one behind it is taken
            for statement, values in steps:
                statement.run(connection, [statement.parameters(values | {"next_id": row["next_id"]})])
            return ended(connection)

        def ended(connection: Connection) -> Ending:
            if undeploy:
                sql.UNDEPLOYED.run(connection, [sql.UNDEPLOYED.parameters(row)])
            if retry:
                return Ending(True, outcome, reason, row["next_id"], to_iso(now))
            return Ending(True, outcome, reason, more=sql.MORE.first(connection, row) is not None)

        return await self._write(Write(lifecycle_id, steps, ended, refused))

    async def retry_lifecycle(self, lifecycle_id: str) -> str:
        row = {"row_id": lifecycle_id, "next_id": new_id(), "now": validation.now()}

        def accept(connection: Connection) -> str:
            found = _found(connection, lifecycle_id)
            if found["status"] in OPEN:
                raise TransitionRefused(
                    f"lifecycle {lifecycle_id} is {found['status']}: it has not ended yet"
                )
            if not found["has_payload"] and found["operation"] != "teardown":
                raise InvalidLifecycle(f"lifecycle {lifecycle_id}: its request is not known, submit it anew")
            sql.AGAIN.run(connection, [sql.AGAIN.parameters(row)])
            return row["next_id"]

        return await self._write(Write(lifecycle_id, [], accept, accept))

    async def request_cancel(self, lifecycle_id: str) -> Status:
        row = {"row_id": lifecycle_id, "now": validation.now()}

        def cancel(connection: Connection) -> Status:
            found, _ = _open_state(connection, lifecycle_id)
            if found == "running":
                connection.execute(sql.CANCEL_RUNNING, row)
                return "running"
            connection.execute(sql.CANCEL_PENDING, row | {"reason": CANCELLED})
            return "failed"

        return await self._write(Write(lifecycle_id, [], cancel, cancel))

    async def find_cancelled(self, owner: str) -> list[str]:
        found = await self._read(lambda c: sql.FIND_CANCELLED.rows(c, {"by_owner": owner}))
        return [row["id"] for row in found]

    async def record_delivery(self, lifecycle_id: str, deliveries: int) -> bool:
        steps = [(sql.NOTE_DELIVERY, {"row_id": lifecycle_id, "seen": deliveries, "now": validation.now()})]
        return await self._write(Write(lifecycle_id, steps, lambda _: True, lambda _: False))

    async def get_lifecycle(self, lifecycle_id: str) -> Row | None:
        return await self._read(lambda c: sql.BY_ID.first(c, {"row_id": lifecycle_id}))

    async def get_lifecycle_by_ids(self, ids: Iterable[str]) -> list[Row]:
        wanted = {"ids": json.dumps(list(ids))}
        return await self._read(lambda c: sql.BY_IDS.rows(c, wanted))

    async def find_open_lifecycle(
        self, decky_name: str, operation: str, host_uuid: str | None = None
    ) -> Row | None:
        wanted = {"decky_name": decky_name, "operation": operation}
        if host_uuid is None:
            return await self._read(lambda c: sql.FIND_OPEN.first(c, wanted))
        wanted["host"] = host_uuid
        return await self._read(lambda c: sql.FIND_OPEN_ON_HOST.first(c, wanted))

    async def find_next_lifecycle(self, decky_name: str, host_uuid: str | None) -> Row | None:
        decky = {"decky_name": decky_name, "host": sql.host_key(host_uuid)}
        return await self._read(lambda c: sql.FIND_NEXT.first(c, decky))

    async def find_ready_lifecycles(self, host_uuid: str | None, limit: int) -> list[Row]:
        wanted = {"host": sql.host_key(host_uuid), "most": limit}
        return await self._read(lambda c: sql.FIND_READY.rows(c, wanted))

    async def list_open_lifecycles(self, host_uuid: str | None = ANY_HOST) -> list[Row]:
        if host_uuid == ANY_HOST:
            return await self._read(lambda c: sql.LIST_OPEN.rows(c, {}))
        return await self._read(lambda c: sql.LIST_OPEN_ON_HOST.rows(c, {"host": sql.host_key(host_uuid)}))

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
    ) -> list[Row]:
        statement = sql.listing(
            statuses=statuses,
            outcomes=outcomes,
            operation=operation,
            decky_name=decky_name,
            host_uuid=host_uuid,
            since=None if since is None else validation.time("since", since),
            limit=limit,
        )
        return await self._read(lambda c: Query(statement).rows(c, {}))

    async def get_deployed(self, decky_name: str, host_uuid: str | None) -> Deployed | None:
        decky = {"decky_name": decky_name, "host": sql.host_key(host_uuid)}
        row: Any = await self._read(lambda c: sql.FIND_DEPLOYED.first(c, decky))
        return None if row is None else Deployed(row["document"], row["services"])

    async def list_deployed(
        self, *, host_uuid: str | None = ANY_HOST, decky_name: str | None = None
    ) -> list[DeployedDecky]:
        statement = sql.deployed_deckies(host_uuid, decky_name)
        found: list[Any] = await self._read(lambda c: Query(statement).rows(c, {}))
        return [cast("DeployedDecky", {"host_uuid": row.pop("host") or None, **row}) for row in found]

    async def find_document(self, decky_name: str, host_uuid: str | None) -> dict[str, Any] | None:
        decky = {"decky_name": decky_name, "host": sql.host_key(host_uuid)}

        def find(connection: Connection) -> dict[str, Any] | None:
            with connection.begin():
                payloads = [row["payload"] or {} for row in sql.OPEN_PAYLOADS.rows(connection, decky)]
                deployed: Any = sql.FIND_DEPLOYED.first(connection, decky) or {}
            found = [payload["compose"] for payload in payloads if "compose" in payload]
            document: dict[str, Any] | None = found[0] if found else deployed.get("document")
            return document

        return await self._read(find)

    async def sweep_stale_lifecycle(
        self, older_than: datetime, reason: str, *, host_uuid: str | None = ANY_HOST
    ) -> int:
        cut = validation.time("older_than", older_than)
        values = {"older_than": cut, "reason": validation.error_text(reason), "now": validation.now()}
        statement = sql.SWEEP
        if host_uuid != ANY_HOST:
            statement, values = sql.SWEEP_ON_HOST, values | {"host": sql.host_key(host_uuid)}
        return await self._write_rows(lambda c: c.execute(statement, values).rowcount)

    async def prune_lifecycles(self, older_than: datetime, limit: int = 500) -> int:
        values = {"older_than": validation.time("older_than", older_than), "most": limit}
        return await self._write_rows(lambda c: c.execute(sql.PRUNE, values).rowcount)

    async def check(self) -> dict[str, str]:
        facts = await self._read(_facts)
        return {"path": str(self._file.path)} | facts

    async def _write(self, write: Write[T]) -> T:
        return await self._opened().writes.write(write)

    async def _write_rows(self, change: Callable[[Connection], int]) -> int:
        return await self._write(Write("", [], change, change))

    async def _read(self, query: Callable[[Connection], T]) -> T:
        return await self._opened().reads.read(query)

    def _opened(self) -> Store:
        if self._store is None:
            raise StoreUnusable(f"{self._file.path}: not open, call initialize() first")
        return self._store


def _found(connection: Connection, lifecycle_id: str) -> dict[str, Any]:
    row: Any = sql.STATE.first(connection, {"row_id": lifecycle_id})
    if row is None:
        raise LifecycleNotFound(f"lifecycle {lifecycle_id}: no row has this id")
    return dict(row)


def _open_state(connection: Connection, lifecycle_id: str) -> tuple[Status, str]:
    row = _found(connection, lifecycle_id)
    status: Status = row["status"]
    if status not in OPEN:
        raise LifecycleClosed(f"lifecycle {lifecycle_id} is {status}: nothing leaves a terminal row")
    return status, row["decky_name"]


def _facts(connection: Connection) -> dict[str, str]:
    def ask(question: str) -> str:
        return str(connection.exec_driver_sql(question).scalar())

    with connection.begin():
        return {
            "schema": ask(f"SELECT version_num FROM {VERSION_TABLE}"),  # noqa: S608
            "sqlite_version": ask("SELECT sqlite_version()"),
            "journal_mode": ask("PRAGMA journal_mode"),
            "integrity": ask("PRAGMA integrity_check(1)"),
        }
