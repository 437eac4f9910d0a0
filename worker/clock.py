"""Wall-clock times as rows and lines carry them, and measured durations as people read them."""

from datetime import UTC, datetime


def now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


def seconds_since(moment: str, until: str | None = None) -> float:
    """Seconds from an ISO 8601 time of a row to another one, or to now; never below zero."""
    end = now() if until is None else datetime.fromisoformat(until)
    return max(0.0, round((end - datetime.fromisoformat(moment)).total_seconds(), 3))


def short_span(seconds: float | None) -> str:
    """Measured seconds for a narrow column: 0.4s, 12s, 3m, 2h, 5d; - for None."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def exact_span(seconds: float) -> str:
    """Measured seconds for a line of the log: 12 ms, 3.4 s, 71.0 s."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
