"""Rows as a store gives them, without one."""

from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def row(
    number: int = 1,
    decky_name: str = "decky-01",
    status: str = "pending",
    *,
    started_at: float = 0,
    claimed_at: float | None = None,
    completed_at: float | None = None,
    **more: Any,
) -> Any:
    """A row; its times in seconds after noon."""
    return {
        "id": f"01a20993-0000-7000-8000-{number:012d}",
        "decky_name": decky_name,
        "host_uuid": None,
        "operation": "deploy",
        "status": status,
        "outcome": None,
        "error": "no" if status == "failed" else None,
        "attempt": 1,
        "retry_of": None,
        "started_at": _moment(started_at),
        "claimed_at": _moment(claimed_at),
        "completed_at": _moment(completed_at),
    } | more


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else (NOON + timedelta(seconds=seconds)).isoformat()
