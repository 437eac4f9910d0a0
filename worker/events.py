"""The event catalogue: every line that this system logs by itself, defined once.

`python -m worker.events` prints the catalogue as docs/events.md has it. `emit` writes one event. An event that is not here, or lacks one of its fields, is a programming error:
it is raised where DECNET_REAPER_STRICT_EVENTS is set (the tests), and logged as it is everywhere else,
since a log call must never end a worker.
"""

import contextlib
import logging
import os
import sys
from typing import Any, Final, NamedTuple

import structlog

from repo.base import Row

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

_STRICT: Final = bool(os.environ.get("DECNET_REAPER_STRICT_EVENTS"))
_log = structlog.get_logger("decnet-reaper")


class Event(NamedTuple):
    """One kind of line.

    Attributes:
        level: the logging level.
        when: when it is written.
        advice: what an operator should do.
        fields: the names of its fields, always all there (null where not known).
    """

    level: int
    when: str
    advice: str
    fields: tuple[str, ...]


ROW_FIELDS: Final = ("lifecycle_id", "decky_name", "operation", "host_uuid", "attempt")

FIELDS: Final[dict[str, str]] = {
    "lifecycle_id": "string: id of the row (UUID version 7)",
    "decky_name": "string: the decky",
    "operation": '"deploy" or "mutate"',
    "host_uuid": "string or null: the host that the decky lives on; null for the master's own",
    "attempt": "integer: 1 for the first attempt",
    "retry_of": "string or null: id of the row that this one repeats",
    "retry_id": "string or null: id of the row that repeats this one",
    "owner": "string or null: the worker's life that owns the row: host/boot/pid/start/random",
    "started_at": "UTC ISO 8601: when the attempt was accepted",
    "queue_wait_s": "seconds: from acceptance to claim",
    "duration_s": "seconds: how long it took",
    "runtime": '"compose" or "process"',
    "error": "string: why it failed",
    "reason": "string: why, in one line",
    "status": '"succeeded" or "failed"',
    "delivery": "integer: how often the row has been rung",
    "job_id": "string: the arq job",
    "overdue_s": "seconds past the deadline",
    "line": "string: at most 500 characters",
    "pids": "list of integers: processes that were ended",
    "redis": "string: the queue's DSN without its password",
    "down_s": "seconds that it was away",
    "outcome": '"succeeded" or "failed"',
    "max_jobs": "integer: operations at a time",
    "running": "integer: operations that run",
    "database": "string: the store's path",
    "pid": "integer: process id",
    "interval_s": "seconds between two passes",
    "rows": "integer: open rows seen",
    "failed": "integer: rows closed",
    "retried": "integer: retries accepted",
    "redelivered": "integer: rows rung again",
    "ended": "integer: processes ended",
    "pruned": "integer: old rows removed",
    "trigger": '"start", "cron", "backstop", "death" or "command": what caused the pass',
}

EVENTS: Final[dict[str, Event]] = {
    "lifecycle.accepted": Event(
        INFO, "a row was committed as pending", "nothing", (*ROW_FIELDS, "retry_of", "started_at")
    ),
    "lifecycle.running": Event(
        INFO,
        "a worker claimed the row",
        "nothing",
        (*ROW_FIELDS, "retry_of", "owner", "started_at", "queue_wait_s"),
    ),
    "lifecycle.succeeded": Event(
        INFO,
        "the operation is done",
        "nothing",
        (*ROW_FIELDS, "owner", "runtime", "outcome", "queue_wait_s", "duration_s"),
    ),
    "lifecycle.failed": Event(
        ERROR,
        "the operation failed, was cancelled, or was cut short by its worker's stop",
        "read the error; submit again once it is mended",
        (*ROW_FIELDS, "owner", "runtime", "outcome", "queue_wait_s", "duration_s", "error", "retry_id"),
    ),
    "lifecycle.swept": Event(
        ERROR,
        "the reaper closed a row whose executor is gone, or that nobody started in time",
        "look for the worker's death: journalctl -u 'decnet-worker@*'",
        (*ROW_FIELDS, "owner", "error", "retry_id"),
    ),
    "lifecycle.cancelled": Event(
        WARNING, "a pending row was closed by an operator", "nothing", (*ROW_FIELDS, "error")
    ),
    "lifecycle.cancel_requested": Event(
        WARNING, "an operator asked for a running operation to be ended", "nothing", ("lifecycle_id",)
    ),
    "lifecycle.redelivered": Event(
        WARNING,
        "a pending row was rung again, since no job of it was queued",
        "often: look whether Redis loses data or workers die",
        (*ROW_FIELDS, "delivery"),
    ),
    "lifecycle.overdue": Event(
        WARNING,
        "an operation is past its deadline and its worker has not ended it",
        "look at the worker; it is ended after the grace period",
        (*ROW_FIELDS, "owner", "overdue_s"),
    ),
    "lifecycle.late_write_refused": Event(
        WARNING,
        "a worker came to end a row that is not its own any more; nothing was changed",
        "the worker was cut off for long: look for a stopped process or a lost lock",
        (*ROW_FIELDS, "owner", "status"),
    ),
    "lifecycle.survivors_ended": Event(
        WARNING,
        "processes that outlived their operation's worker were killed",
        "nothing",
        (*ROW_FIELDS, "pids"),
    ),
    "lifecycle.unknown": Event(
        WARNING, "a job named a row that is not in the store", "look who writes to Redis", ("lifecycle_id",)
    ),
    "runtime.output": Event(
        DEBUG, "a line that the runtime's child printed", "nothing", ("lifecycle_id", "decky_name", "line")
    ),
    "queue.job_refused": Event(
        WARNING, "a job that we did not write was dropped", "look who writes to Redis", ("job_id", "reason")
    ),
    "queue.unreachable": Event(
        ERROR, "Redis went away (once per outage)", "bring Redis back; nothing is lost", ("redis", "reason")
    ),
    "queue.recovered": Event(INFO, "Redis is back", "nothing", ("redis", "down_s")),
    "store.unavailable": Event(
        ERROR,
        "the store refused a write for now; it is tried again",
        "free space, or end the process that locks the file",
        ("reason",),
    ),
    "worker.started": Event(
        INFO,
        "a worker is ready",
        "nothing",
        ("owner", "pid", "runtime", "max_jobs", "database", "redis", "host_uuid"),
    ),
    "worker.stopping": Event(INFO, "a worker was told to stop", "nothing", ("owner", "running")),
    "worker.stopped": Event(INFO, "a worker has stopped", "nothing", ("owner",)),
    "worker.job_crashed": Event(
        ERROR,
        "a job raised what it should not; its row is left to the reaper",
        "report it",
        ("job_id", "reason"),
    ),
    "reaper.started": Event(
        INFO, "a reaper is ready", "nothing", ("pid", "interval_s", "database", "redis", "host_uuid")
    ),
    "reaper.stopped": Event(INFO, "a reaper has stopped", "nothing", ("pid",)),
    "reaper.swept": Event(
        INFO,
        "a pass that did something",
        "nothing",
        ("trigger", "rows", "failed", "retried", "redelivered", "ended", "pruned", "duration_s"),
    ),
    "reaper.pass_failed": Event(
        ERROR,
        "a pass could not be finished; the next one tries again",
        "read the reason",
        ("trigger", "reason"),
    ),
}


def row_fields(row: Row) -> dict[str, Any]:
    """The fields that say which row a line is about."""
    return {"lifecycle_id": row["id"], **{name: row.get(name) for name in ROW_FIELDS[1:]}}


def emit(event: str, row: Row | None = None, **fields: Any) -> None:
    """Log one event of the catalogue.

    Args:
        event: its name.
        row: the row that it is about, if it is about one.
        fields: its other fields.
    """
    if row is not None:
        fields = row_fields(row) | fields
    if _STRICT and (wrong := set(EVENTS[event].fields) ^ fields.keys()):
        raise ValueError(f"{event}: these fields are missing or unknown: {', '.join(sorted(wrong))}")
    # A full disk or a closed pipe behind the log must not end an operation.
    with contextlib.suppress(Exception):
        _log.log(EVENTS[event].level, event, **fields)


def markdown() -> str:
    """The catalogue for people: docs/events.md."""
    lines = [
        "# Event catalogue",
        "",
        "Made by `python -m worker.events > docs/events.md`. Every line has `timestamp` (UTC, ISO 8601), `level` and",
        "`event`; durations are in seconds; a field that is not known is null.",
        "",
        "| event | level | when | what to do | fields |",
        "|---|---|---|---|---|",
    ]
    for name, event in EVENTS.items():
        level = logging.getLevelName(event.level).lower()
        fields = ", ".join(f"`{field}`" for field in event.fields)
        lines.append(f"| `{name}` | {level} | {event.when} | {event.advice} | {fields} |")
    lines += ["", "| field | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in FIELDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
