"""Wall-clock times, as rows and lines carry them."""

from datetime import UTC, datetime


def now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


def seconds_since(moment: str) -> float:
    """Seconds since an ISO 8601 time of a row, never below zero."""
    return max(0.0, round((now() - datetime.fromisoformat(moment)).total_seconds(), 3))
