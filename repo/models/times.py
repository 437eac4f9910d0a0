"""Times as the store writes them, and as it hands them out."""

from datetime import UTC, datetime


def to_text(moment: datetime) -> str:
    """As DECNET writes a time, and so that text sorts like time: `2026-05-04 10:11:12.123456`, UTC."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def to_iso(found: str) -> str:
    """ISO 8601 in aware UTC, from the text that the database holds; PostgreSQL's has an offset.

    Raises:
        ValueError, TypeError: that is no time as `to_text` writes it.
    """
    moment = datetime.fromisoformat(found)
    text = found if moment.tzinfo is None else found.removesuffix("+00")
    if len(text) == 26:  # isoformat() takes 3 microseconds
        return f"{text[:10]}T{text[11:]}+00:00"
    if moment.tzinfo is None:
        raise ValueError(f"{found!r} is no time")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
