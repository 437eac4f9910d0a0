"""The calls that read."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Unpack, cast

from repo.base import (
    ANY_HOST,
    Deployed,
    DeployedDecky,
    Filter,
    Host,
    Lifecycle,
    StoreIdentity,
)
from repo.history import EndedFilter, Hour, Spread
from repo.lifecycle import host_key
from repo.models import validation
from repo.repository.opened import OpenedRepository
from repo.repository.prepared import history, reads
from repo.repository.steps import decky_key


class Reads(OpenedRepository):
    """The calls that read."""

    async def find_cancelled(self, owner: str) -> list[str]:
        return [row["id"] for row in await self._rows(reads.FIND_CANCELLED, {"by_owner": owner})]

    async def get_lifecycle(self, lifecycle_id: str) -> Lifecycle | None:
        if not lifecycle_id.isprintable():  # PostgreSQL can't even be asked for it
            return None
        return await self._first(reads.BY_ID, {"row_id": lifecycle_id})

    async def get_lifecycle_by_ids(self, ids: Iterable[str], *, payload: bool = True) -> list[Lifecycle]:
        statement = reads.BY_IDS if payload else reads.BY_IDS_WITHOUT_PAYLOAD
        return await self._rows(statement, {"ids": json.dumps([id_ for id_ in ids if id_.isprintable()])})

    async def find_open_lifecycle(
        self, decky_name: str, operation: str, host_uuid: str | None = None
    ) -> Lifecycle | None:
        statement = reads.FIND_OPEN if host_uuid is None else reads.FIND_OPEN_ON_HOST
        wanted = {"decky_name": decky_name, "operation": operation, "host": host_uuid}
        return await self._first(statement, wanted)

    async def find_next_lifecycle(self, decky_name: str, host_uuid: str | None) -> Lifecycle | None:
        return await self._first(reads.FIND_NEXT, decky_key(decky_name, host_uuid))

    async def find_ready_lifecycles(self, host_uuid: str | None, limit: int) -> list[Lifecycle]:
        return await self._rows(reads.FIND_READY, {"host": host_key(host_uuid), "most": limit})

    async def list_open_lifecycles(self, host_uuid: str | None = ANY_HOST) -> list[Lifecycle]:
        statement = reads.LIST_OPEN if host_uuid == ANY_HOST else reads.LIST_OPEN_ON_HOST
        return await self._rows(statement, {"host": host_key(host_uuid)})

    async def list_open_elsewhere(self, hosts: Iterable[str | None]) -> list[Lifecycle]:
        known = json.dumps([host_key(host) for host in hosts])
        return await self._rows(reads.LIST_OPEN_ELSEWHERE, {"hosts": known})

    async def list_lost_lifecycles(self, host_uuid: str | None) -> list[Lifecycle]:
        return await self._rows(reads.LIST_LOST, {"host": host_key(host_uuid)})

    async def list_lifecycles(self, **wanted: Unpack[Filter]) -> list[Lifecycle]:
        host_uuid = wanted.get("host_uuid")
        values = validation.filtered({**wanted, "host_uuid": ANY_HOST if host_uuid is None else host_uuid})
        return await self._rows(reads.LIST.by(values), values)

    async def list_ended(self, **wanted: Unpack[EndedFilter]) -> list[Lifecycle]:
        values = validation.filtered(wanted)
        return await self._rows(history.ENDED.by(values), values)

    async def list_around(self, row: Lifecycle, limit: int) -> list[Lifecycle]:
        at = {
            "row_id": row["id"],
            "started_at": validation.time("started_at", datetime.fromisoformat(row["started_at"])),
            **decky_key(row["decky_name"], row["host_uuid"]),
        }
        up_to = await self._rows(history.UP_TO, at | {"most": limit + 1})
        return [*reversed(up_to), *await self._rows(history.AFTER, at | {"most": limit})]

    async def hours(self, since: datetime) -> list[Hour]:
        at = {"since": validation.time("since", since)}
        outcomes: dict[str, dict[str, int]] = {}
        found: list[Any] = await self._rows(history.OUTCOMES, at)
        for each in found:
            outcomes.setdefault(each["hour"], {})[each["outcome"]] = each["rows"]
        spread: list[Any] = await self._rows(history.SPREADS, at)
        spreads = {(each["hour"], each["what"]): Spread(each["p50"], each["p99"]) for each in spread}
        return [
            Hour(
                f"{hour[:10]}T{hour[11:]}:00:00+00:00",
                outcomes[hour],
                spreads.get((hour, "wait")),
                spreads.get((hour, "took")),
            )
            for hour in sorted(outcomes)
        ]

    async def get_deployed(self, decky_name: str, host_uuid: str | None) -> Deployed | None:
        row: Any = await self._first(reads.FIND_DEPLOYED, decky_key(decky_name, host_uuid))
        return None if row is None else Deployed(row["document"], row["services"])

    async def list_deployed(
        self, *, host_uuid: str | None = ANY_HOST, decky_name: str | None = None
    ) -> list[DeployedDecky]:
        values = validation.filtered({"host_uuid": host_uuid, "decky_name": decky_name})
        found: list[Any] = await self._rows(reads.LIST_DEPLOYED.by(values), values)
        return [cast("DeployedDecky", {"host_uuid": row.pop("host") or None, **row}) for row in found]

    async def find_document(self, decky_name: str, host_uuid: str | None) -> dict[str, Any] | None:
        # One statement, so that a row that ends meanwhile is seen either way.
        found: list[Any] = await self._rows(reads.DOCUMENTS, decky_key(decky_name, host_uuid))
        for row in sorted(found, key=lambda row: str(row["id"]), reverse=True):
            if row["operation"] == "teardown":
                return None
            asked = row["value"] or {}
            if (document := asked.get("compose") if row["operation"] else asked) is not None:
                return cast("dict[str, Any]", document)
        return None

    async def identify(self) -> StoreIdentity:
        self._opened()
        (row,) = await self._engine.rows(reads.STORE, {})
        return StoreIdentity(row["id"], self._engine.name)

    async def list_hosts(self) -> list[Host]:
        self._opened()
        return await self._engine.hosts()

    async def check(self) -> dict[str, str]:
        self._opened()
        return await self._engine.facts()
