"""The calls of those who look back."""

from datetime import datetime
from typing import Any, Unpack

from repo.base import Lifecycle
from repo.history import EndedFilter, Hour, Spread
from repo.models import validation
from repo.repository.opened import OpenedRepository
from repo.repository.prepared import history
from repo.repository.steps import decky_key


class LookingBack(OpenedRepository):
    """The calls of those who look back."""

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
