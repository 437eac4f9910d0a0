"""Rows for people and for scripts.

A table fits the terminal that it is printed on: ids are whole where there is room, else their last eight
characters, which every command takes for an id; errors stand in the row, else beneath it. What is piped is
never cut and has one line a row.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from repo.base import Lifecycle
from worker.logging.console import printable, tail

COLOURS = {"pending": "yellow", "running": "cyan", "succeeded": "green", "failed": "red"}

_ROW_FIELDS = (
    *("id", "decky_name", "host_uuid", "operation", "status", "error"),
    *("started_at", "claimed_at", "completed_at", "updated_at"),
    *("attempt", "retry_of", "owner", "cancel_requested_at", "deliveries", "enqueued_at"),
)
_NUMBERS = {"age", "wait", "took", "try"}
_GAP = "  "
_INDENT = "    "
_LEAST_ERROR = 24


class Spans(NamedTuple):
    """How long a row has been there, in seconds.

    Attributes:
        age: since it was accepted.
        wait: from its acceptance to its start, so far while it is pending; None if it was never started.
        took: from its start to its end, so far while it runs; None if it was never started.
    """

    age: float
    wait: float | None
    took: float | None


def spans(row: Lifecycle, moment: datetime | None = None) -> Spans:
    """How long a row has been there.

    Args:
        row: from the store.
        moment: the time to measure open rows at, aware; default now.
    """
    now = datetime.now(UTC) if moment is None else moment
    accepted = datetime.fromisoformat(row["started_at"])
    claimed = None if row["claimed_at"] is None else datetime.fromisoformat(row["claimed_at"])
    ended = None if row["completed_at"] is None else datetime.fromisoformat(row["completed_at"])

    def between(start: datetime, end: datetime) -> float:
        return max(0.0, round((end - start).total_seconds(), 3))

    if claimed is None:
        return Spans(between(accepted, now), None if ended else between(accepted, now), None)
    return Spans(between(accepted, now), between(accepted, claimed), between(claimed, ended or now))


def public(row: Lifecycle, moment: datetime | None = None) -> dict[str, Any]:
    """A row as `--json` prints it: without its request, which may hold secrets, and with its spans."""
    age, wait, took = spans(row, moment)
    columns: Mapping[str, Any] = row
    return {name: columns[name] for name in _ROW_FIELDS} | {
        "age_s": age,
        "queue_wait_s": wait,
        "duration_s": took,
    }


def to_json(value: object) -> str:
    """JSON, as all commands print it."""
    return json.dumps(value, indent=2)


def show_rows(rows: Sequence[Lifecycle], *, as_json: bool, whole_errors: bool = False) -> None:
    """Print rows as a table, or as a JSON array.

    Args:
        rows: from the store.
        as_json: for scripts.
        whole_errors: on a terminal, print each error in full instead of its beginning.
    """
    if as_json:
        click.echo(to_json([public(row) for row in rows]))
        return
    for line in table(rows, terminal_width(), whole_errors=whole_errors):
        click.echo(line)


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    rows: Sequence[Lifecycle],
    width: int | None,
    *,
    moment: datetime | None = None,
    whole_errors: bool = False,
) -> list[str]:
    """The lines of a table, coloured.

    Args:
        rows: from the store.
        width: columns to stay within, where names are not too long for that; None for no limit.
        moment, whole_errors: as `spans` and `show_rows` take them.
    """
    with_host = any(row["host_uuid"] for row in rows)
    errors = [printable(row["error"] or "") for row in rows]
    cells = [_cells(row, moment, with_host=with_host) for row in rows]
    headings = ["id", "decky", *(["host"] if with_host else []), "operation", "state", "age", "wait", "took"]
    headings.append("try")
    if width is not None and _width(headings, cells) > width:
        cells = [[tail(row["id"]), *rest] for row, (_, *rest) in zip(rows, cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    room = None if width is None else width - sum(widths) - len(_GAP) * len(widths)
    longest = max(map(len, errors), default=0)
    beside = room is None or longest <= room
    shown = [
        click.style(
            _aligned(headings, headings, widths) + (_GAP + "error" if longest and beside else ""), bold=True
        )
    ]
    for row, texts, error in zip(rows, cells, errors, strict=True):
        line = _aligned(headings, texts, widths, row["status"])
        shown.append(f"{line}{_GAP}{error}" if error and beside else line.rstrip())
        if error and not beside and width is not None:
            shown += _beneath((row["error"] or "") if whole_errors else error, width, whole=whole_errors)
    return shown


def _cells(row: Lifecycle, moment: datetime | None, *, with_host: bool) -> list[str]:
    age, wait, took = spans(row, moment)
    return [
        printable(row["id"]),
        printable(row["decky_name"]),
        *([printable(row["host_uuid"] or "-")] if with_host else []),
        row["operation"],
        row["status"],
        span(age),
        span(wait),
        span(took),
        str(row["attempt"]),
    ]


def _width(headings: list[str], cells: list[list[str]]) -> int:
    columns = zip(headings, *cells, strict=True)
    return sum(max(map(len, column)) + len(_GAP) for column in columns)


def _aligned(headings: list[str], texts: list[str], widths: list[int], status: str = "") -> str:
    padded = [
        text.rjust(width) if heading in _NUMBERS else text.ljust(width)
        for heading, text, width in zip(headings, texts, widths, strict=True)
    ]
    if status:
        state = headings.index("state")
        padded[state] = click.style(padded[state], fg=COLOURS[status])
    return _GAP.join(padded)


def _beneath(error: str, width: int, *, whole: bool) -> list[str]:
    room = max(_LEAST_ERROR, width - len(_INDENT))
    if whole:
        parts = [part for line in error.splitlines() for part in textwrap.wrap(printable(line), room)]
    else:
        parts = [error if len(error) <= room else error[: room - 1] + "…"]
    return [_INDENT + click.style(part, fg="red") for part in parts]


def span(seconds: float | None) -> str:
    """Seconds, short: 0.4s, 12s, 3m, 2h, 5d; - for None."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
