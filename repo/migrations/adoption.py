"""A `decky_lifecycle` table that DECNET itself made: taken over in place, losing no row.

DECNET's table (SQLModel, nine columns) has neither CHECKs nor guards, so that it can hold rows that this
schema refuses. They are brought into shape: a terminal row without `completed_at` gets its `updated_at`; an
error survives on failed rows only; an open row has no `completed_at`; where several rows of one decky are
running, all but the newest have failed. What can't be understood is refused, and nothing changed.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, column, inspect, select, table, text

from repo.base import OPEN, OPERATIONS, TERMINAL
from repo.errors import InvalidLifecycle, StoreUnusable
from repo.models.tables import lifecycle
from repo.models.times import to_text
from repo.models.validation import check

COLUMNS = (
    *("id", "decky_name", "host_uuid", "operation", "status", "error"),
    *("started_at", "updated_at", "completed_at"),
)
INTERRUPTED = "master restarted during operation"

_BATCH = 5_000
_OLD = table("decky_lifecycle_of_decnet", *map(column, COLUMNS))


def take(connection: Connection) -> bool:
    """Move DECNET's table out of the way; whether there was one.

    Raises:
        StoreUnusable: the table is somebody else's.
    """
    inspector = inspect(connection)
    if not inspector.has_table(lifecycle.name):
        return False
    found = {column["name"] for column in inspector.get_columns(lifecycle.name)}
    if found != set(COLUMNS):
        raise StoreUnusable(
            f"its table {lifecycle.name} has other columns than DECNET's"
            f" ({', '.join(sorted(found ^ set(COLUMNS)))}): use another file, or rename that table"
        )
    connection.execute(text(f"ALTER TABLE {lifecycle.name} RENAME TO {_OLD.name}"))
    return True


def give_back(connection: Connection) -> None:
    """Copy DECNET's rows, oldest first, into the new table, and drop its own.

    Raises:
        StoreUnusable: a row has an operation, a status or a time that nobody knows; the message says which.
    """
    old = connection.execute(select(_OLD).order_by(_OLD.c.started_at, _OLD.c.id))
    newest = _newest_running(connection)
    now = to_text(datetime.now(UTC))
    for rows in old.partitions(_BATCH):
        connection.execute(lifecycle.insert(), [_adopted(row, newest, now) for row in rows])
    connection.execute(text(f"DROP TABLE {_OLD.name}"))


def _newest_running(connection: Connection) -> dict[tuple[str | None, str], str]:
    rows = connection.execute(
        select(_OLD).where(_OLD.c.status == "running").order_by(_OLD.c.started_at, _OLD.c.id)
    )
    return {(row.host_uuid or None, row.decky_name): row.id for row in rows}


def _adopted(row: Row[Any], newest: dict[tuple[str | None, str], str], now: str) -> dict[str, Any]:
    if row.operation not in OPERATIONS or row.status not in OPEN + TERMINAL:
        raise StoreUnusable(
            f"row {row.id} of its table {lifecycle.name} has operation {row.operation!r} and status"
            f" {row.status!r}, which no DECNET writes: correct or delete that row first"
        )
    try:
        for name in ("id", "decky_name") + (("host_uuid",) if row.host_uuid else ()):
            check(name, row._mapping[name])
    except InvalidLifecycle as error:
        raise StoreUnusable(
            f"row {row.id} of its table {lifecycle.name}: {error}: correct or delete that row first"
        ) from None
    values: dict[str, Any] = {**row._mapping, "host_uuid": row.host_uuid or None, "outcome": None}
    for name in ("started_at", "updated_at", "completed_at"):
        values[name] = _time(row, name)
    if row.status == "running" and newest[row.host_uuid or None, row.decky_name] != row.id:
        values |= {
            "status": "failed",
            "outcome": "swept",
            "error": INTERRUPTED,
            "updated_at": now,
            "completed_at": now,
        }
    elif row.status in OPEN:
        values |= {"error": None, "completed_at": None}
    else:
        values["completed_at"] = values["completed_at"] or values["updated_at"]
        values["outcome"] = row.status
        values["error"] = row.error if row.status == "failed" else None
    return values | {"attempt": 1, "deliveries": 0}


def _time(row: Row[Any], name: str) -> str | None:
    value = row._mapping[name]
    if value is None and name == "completed_at":
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise StoreUnusable(
            f"row {row.id} of its table {lifecycle.name} has {name} {value!r}, which is no time:"
            " correct or delete that row first"
        ) from None
    return to_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
