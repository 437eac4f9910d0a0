"""Rows as a store gives them, without one."""

from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def row(number: int = 1, decky_name: str = "decky-01", status: str = "pending", **more: Any) -> Any:
    """A row; its times, where given, in seconds after noon."""
    times = {name: more.pop(name, None) for name in ("started_at", "claimed_at", "completed_at")}
    times["started_at"] = times["started_at"] or 0
    return {
        "id": f"01a20993-0000-7000-8000-{number:012d}",
        "decky_name": decky_name,
        "host_uuid": None,
        "operation": "deploy",
        "status": status,
        "error": "no" if status == "failed" else None,
        "attempt": 1,
        "retry_of": None,
        **{name: _moment(seconds) for name, seconds in times.items()},
    } | more


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else (NOON + timedelta(seconds=seconds)).isoformat()
