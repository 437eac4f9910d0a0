"""The tables as the code sees them. Constraints, indexes and triggers: migrations/versions."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Dialect, Integer, MetaData, String, Table, Text
from sqlalchemy.types import UserDefinedType

HEAD = "0001"
"""The revision that this code writes; a file that says so needs no migration, and no Alembic."""

VERSION_TABLE = "decnet_reaper_version"
"""Not Alembic's usual name: DECNET keeps that one, for its own schema, in the same file."""


def to_text(moment: datetime) -> str:
    """As DECNET writes a time, and so that text sorts like time: `2026-05-04 10:11:12.123456`, UTC."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def to_iso(text: str) -> str:
    """ISO 8601 in aware UTC, from the stored text or from another ISO format that somebody wrote."""
    if len(text) == 26 and text[10] == " ":
        return f"{text[:10]}T{text[11:]}+00:00"
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


class UtcTime(UserDefinedType[Any]):
    """In goes text as `to_text` writes it, out comes ISO 8601 text, since rows are JSON-ready."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "DATETIME"

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str], str]:
        return to_iso


class JsonText(UserDefinedType[Any]):
    """In goes JSON text (see `fields.to_json`), out comes the value."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "TEXT"

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str], Any]:
        return json.loads


metadata = MetaData()

lifecycle = Table(
    "decky_lifecycle",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("decky_name", String(128), nullable=False),
    Column("host_uuid", String(64)),
    Column("operation", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("outcome", String(16)),
    Column("error", Text),
    Column("started_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("completed_at", UtcTime),
    Column("payload", JsonText),
    Column("owner", String(255)),
    Column("claimed_at", UtcTime),
    Column("attempt", Integer, nullable=False),
    Column("retry_of", String(64)),
    Column("retry_id", String(64)),
    Column("deliveries", Integer, nullable=False),
    Column("enqueued_at", UtcTime),
    Column("cancel_requested_at", UtcTime),
)

deployed = Table(
    "decky_deployed",
    metadata,
    Column("decky_name", String(128), primary_key=True),
    Column("host", String(64), primary_key=True),  # "" is the master's own, since a key can't be null
    Column("document", JsonText, nullable=False),
    Column("services", JsonText, nullable=False),
    Column("lifecycle_id", String(64), nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
