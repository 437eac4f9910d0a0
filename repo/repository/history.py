"""The calls of those who look back."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from repo.base import ANY_HOST, Lifecycle, Operation, Outcome, Status
from repo.history import Hour, Spread
from repo.models import validation
from repo.repository.opened import OpenedRepository
from repo.repository.statements import history
from repo.repository.steps import decky_key


class LookingBack(OpenedRepository):
    """The calls of those who look back."""

    async def list_ended(
        self,
        *,
        statuses: Sequence[Status] = (),
        outcomes: Sequence[Outcome] = (),
        decky_name: str | None = None,
        host_uuid: str | None = ANY_HOST,
        operation: Operation | None = None,
        error: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
    ) -> list[Lifecycle]:
        statement = history.ended(
            statuses=statuses,
            outcomes=outcomes,
            decky_name=decky_name,
            host_uuid=host_uuid,
            operation=operation,
            error=error,
            since=None if since is None else validation.time("since", since),
            until=None if until is None else validation.time("until", until),
            limit=limit,
        )
        return await self._rows(statement, {})

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
