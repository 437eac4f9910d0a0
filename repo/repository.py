"""The repository on SQLAlchemy Core: each call is one write handed to the group commit, or one read."""

import asyncio
import json
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection

from repo import statements as sql
from repo import validation as fields
from repo.base import OPEN, BaseRepository, Claim, Deployed, Ending, Row, Status
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
from repo.ids import id_after
from repo.models import VERSION_TABLE, to_iso
from repo.sqlite.connection import SqliteFile
from repo.sqlite.prepared import Query
from repo.sqlite.store import Store

CANCELLED = "cancelled by operator"

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
        row = fields.accepted(data)
        lifecycle_id: str = row["id"]

        def refused(_: Connection) -> str:
            raise LifecycleExists(f"lifecycle {lifecycle_id}: this id is taken")

        return await self._write(Write(lifecycle_id, [(sql.INSERT, row)], lambda _: lifecycle_id, refused))

    async def submit_lifecycle(self, data: Mapping[str, Any]) -> tuple[str, bool]:
        row = fields.accepted(data)
        row["host"] = sql.host_key(row["host_uuid"])
        lifecycle_id: str = row["id"]

        def refused(connection: Connection) -> tuple[str, bool]:
            asked = sql.FIND_ASKED.first(connection, row)
            if asked is None:
                raise LifecycleExists(f"lifecycle {lifecycle_id}: this id is taken")
            return asked["id"], False

        steps = [(sql.INSERT_UNLESS_ASKED, row)]
        return await self._write(Write(lifecycle_id, steps, lambda _: (lifecycle_id, True), refused))

    async def update_lifecycle(self, lifecycle_id: str, fields_: Mapping[str, Any]) -> None:
        values = fields.changed(fields_)
        status = values.get("status")

        def refused(connection: Connection) -> None:
            found, decky_name = _open_state(connection, lifecycle_id)
            if status == "pending" or (status == "running" and found == "running"):
                raise TransitionRefused(f"lifecycle {lifecycle_id} is {found}: it can't become {status}")
            raise DeckyBusy(f"lifecycle {lifecycle_id}: another operation is running on {decky_name}")

        steps = [(sql.update_open(frozenset(values), status), values | {"row_id": lifecycle_id})]
        await self._write(Write(lifecycle_id, steps, lambda _: None, refused))

    async def claim_lifecycle(self, lifecycle_id: str, owner: str) -> Claim | None:
        steps = [(sql.CLAIM, {"row_id": lifecycle_id, "by_owner": owner, "now": fields.now()})]

        def claimed(connection: Connection) -> Claim | None:
            if (row := sql.CLAIMED.first(connection, {"row_id": lifecycle_id})) is None:
                return None
            document, services = row.pop("document"), row.pop("services")
            return Claim(row, None if document is None else Deployed(document, services))

        return await self._write(Write(lifecycle_id, steps, claimed, lambda _: None))

    async def end_lifecycle(
        self,
        lifecycle_id: str,
        *,
        status: Literal["succeeded", "failed"],
        expect: Literal["pending", "running"] = "running",
        owner: str | None = None,
        error: str | None = None,
        deployed: Deployed | None = None,
        retry: bool = False,
    ) -> Ending:
        if error is not None and status != "failed":
            raise InvalidLifecycle("error: only a status of failed brings one")
        row: dict[str, Any] = {"row_id": lifecycle_id, "now": fields.now()}
        reason = None if error is None else fields.error_text(error)
        ending = {"expect": expect, "by_owner": owner, "to_status": status, "reason": reason}
        steps = [(sql.END, row | ending)]
        if deployed is not None:
            document = fields.to_json(deployed.document, "deployed.document")
            services = fields.to_json(list(deployed.services), "deployed.services")
            steps.append((sql.DEPLOYED, row | {"document": document, "services": services}))
        retry_id = id_after(lifecycle_id) if retry else None
        if retry:
            steps.append((sql.RETRY, row | {"retry_id": retry_id}))

        def refused(connection: Connection) -> Ending:
            _state(connection, lifecycle_id)
            return Ending(False)

        def ended(connection: Connection) -> Ending:
            if retry:
                return Ending(True, retry_id, to_iso(row["now"]))
            return Ending(True, more=sql.MORE.first(connection, row) is not None)

        return await self._write(Write(lifecycle_id, steps, ended, refused))

    async def request_cancel(self, lifecycle_id: str) -> Status:
        row = {"row_id": lifecycle_id, "now": fields.now()}

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
        steps = [(sql.NOTE_DELIVERY, {"row_id": lifecycle_id, "seen": deliveries, "now": fields.now()})]
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

    async def list_open_lifecycles(self) -> list[Row]:
        return await self._read(lambda c: sql.LIST_OPEN.rows(c, {}))

    async def list_lifecycles(
        self,
        *,
        statuses: Sequence[Status] = (),
        decky_name: str | None = None,
        host_uuid: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[Row]:
        statement = sql.listing(
            statuses=statuses,
            decky_name=decky_name,
            host_uuid=host_uuid,
            since=None if since is None else fields.time("since", since),
            limit=limit,
        )
        return await self._read(lambda c: Query(statement).rows(c, {}))

    async def get_deployed(self, decky_name: str, host_uuid: str | None) -> Deployed | None:
        decky = {"decky_name": decky_name, "host": sql.host_key(host_uuid)}
        row = await self._read(lambda c: sql.FIND_DEPLOYED.first(c, decky))
        return None if row is None else Deployed(row["document"], row["services"])

    async def find_document(self, decky_name: str, host_uuid: str | None) -> dict[str, Any] | None:
        decky = {"decky_name": decky_name, "host": sql.host_key(host_uuid)}

        def find(connection: Connection) -> dict[str, Any] | None:
            with connection.begin():
                payloads = [row["payload"] or {} for row in sql.OPEN_PAYLOADS.rows(connection, decky)]
                deployed = sql.FIND_DEPLOYED.first(connection, decky) or {}
            found = [payload["compose"] for payload in payloads if "compose" in payload]
            return found[0] if found else deployed.get("document")

        return await self._read(find)

    async def sweep_stale_lifecycle(self, older_than: datetime, reason: str) -> int:
        cut = fields.time("older_than", older_than)
        values = {"older_than": cut, "reason": fields.error_text(reason), "now": fields.now()}
        return await self._write_rows(lambda c: c.execute(sql.SWEEP, values).rowcount)

    async def prune_lifecycles(self, older_than: datetime, limit: int = 500) -> int:
        values = {"older_than": fields.time("older_than", older_than), "most": limit}
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


def _state(connection: Connection, lifecycle_id: str) -> tuple[Status, str]:
    row = sql.STATE.first(connection, {"row_id": lifecycle_id})
    if row is None:
        raise LifecycleNotFound(f"lifecycle {lifecycle_id}: no row has this id")
    return row["status"], row["decky_name"]


def _open_state(connection: Connection, lifecycle_id: str) -> tuple[Status, str]:
    status, decky_name = _state(connection, lifecycle_id)
    if status not in OPEN:
        raise LifecycleClosed(f"lifecycle {lifecycle_id} is {status}: nothing leaves a terminal row")
    return status, decky_name


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
