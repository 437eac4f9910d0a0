"""Writes one event of the catalogue.

An event that is not there, or a field that is missing, unknown or of the wrong type, is a programming
error: it is raised where DECNET_REAPER_STRICT_EVENTS is set (the tests), and logged as it is everywhere else,
since a log call must never end a worker.
"""

import contextlib
import logging
import os
from typing import Any, Final

import structlog

from repo.base import Lifecycle, Outcome
from worker.clock import seconds_since
from worker.logging.events import EVENTS, ROW_FIELDS
from worker.logging.fields import FIELDS

_STRICT: Final = bool(os.environ.get("DECNET_REAPER_STRICT_EVENTS"))
_log = structlog.get_logger("decnet-reaper")

# In a program that has not configured structlog, such as a master that uses the client, a line goes where
# that program's own logging goes: by default nowhere, and never to its stdout.
_library = logging.getLogger("decnet-reaper")
_library.addHandler(logging.NullHandler())
_library_log = structlog.wrap_logger(
    _library,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.format_exc_info,
        structlog.processors.LogfmtRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def row_fields(row: Lifecycle) -> dict[str, Any]:
    """The fields that say which row a line is about."""
    return {"lifecycle_id": row["id"], **{name: row.get(name) for name in ROW_FIELDS[1:]}}


def emit(
    event: str, row: Lifecycle | None = None, exc_info: BaseException | None = None, **fields: Any
) -> None:
    """Log one event of the catalogue.

    Args:
        event: its name.
        row: the row that it is about, if it is about one.
        exc_info: an error whose traceback becomes the line's `exception`.
        fields: its other fields.
    """
    if row is not None:
        fields = row_fields(row) | fields
    if _STRICT and (wrong := _wrong(event, fields)):
        raise ValueError(f"{event}: these fields are missing, unknown or of the wrong type: {wrong}")
    level, order = (EVENTS[event].level, EVENTS[event].fields) if event in EVENTS else (logging.WARNING, ())
    ordered = {name: fields[name] for name in order if name in fields} | fields
    # A full disk or a closed pipe behind the log must not end an operation.
    with contextlib.suppress(Exception):
        log = _log if structlog.is_configured() else _library_log
        log.log(level, event, **ordered, **({"exc_info": exc_info} if exc_info else {}))


def emit_end(
    row: Lifecycle,
    outcome: Outcome,
    *,
    runtime: str | None = None,
    duration_s: float | None = None,
    error: str | None = None,
    retry_id: str | None = None,
) -> None:
    """Log the one line of an operation that has ended, `lifecycle.<outcome>`.

    Args:
        row: as it was, or is.
        outcome: how it ended.
        runtime: which one ran it, if that is known.
        duration_s: how long that took (default: since the claim, until the end or now).
        error, retry_id: as they were written.
    """
    waited = None
    if (claimed := row["claimed_at"]) is not None:
        waited = seconds_since(row["started_at"], claimed)
        if duration_s is None:
            duration_s = seconds_since(claimed, row["completed_at"])
    emit(
        f"lifecycle.{outcome}",
        row,
        owner=row["owner"],
        runtime=runtime,
        outcome=outcome,
        started_at=row["started_at"],
        claimed_at=claimed,
        queue_wait_s=waited,
        duration_s=duration_s,
        error=error,
        retry_id=retry_id,
    )


def _wrong(event: str, fields: dict[str, Any]) -> str:
    given = EVENTS[event].fields
    names = set(given) ^ fields.keys()
    names |= {name for name in set(given) & fields.keys() if not isinstance(fields[name], FIELDS[name].kind)}
    return ", ".join(sorted(names))
