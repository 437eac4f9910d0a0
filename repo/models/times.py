"""Times as the store writes them, and as it hands them out."""

from datetime import UTC, datetime


def to_text(moment: datetime) -> str:
    """As DECNET writes a time, and so that text sorts like time: `2026-05-04 10:11:12.123456`, UTC."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def to_iso(found: str | datetime) -> str:
    """ISO 8601 in aware UTC, from what the database holds.

    Raises:
        ValueError, TypeError: that is no time as `to_text` writes it.
    """
    if isinstance(found, datetime):
        return found.astimezone(UTC).isoformat(timespec="microseconds")
    if len(found) != 26 or datetime.fromisoformat(found).tzinfo is not None:
        raise ValueError(f"{found!r} is no time")
    return f"{found[:10]}T{found[11:]}+00:00"
