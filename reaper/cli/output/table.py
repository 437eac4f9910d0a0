"""Rows for people and for scripts.

A table fits the terminal that it is printed on: where there is no room, ids are cut to their last eight
characters, which every command takes for an id, then columns are left out, then long names are cut. Errors
stand in the row, else beneath it. What is piped is never cut and has one line a row.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click

from reaper.cli.output.away import NONE_AWAY, Away, state_with_host
from repo.base import OPEN, Lifecycle
from worker.clock import seconds_since, short_span
from worker.logging.console import printable, tail

COLOURS = {"pending": "yellow", "running": "cyan", "succeeded": "green", "failed": "red"}

_ROW_FIELDS = (
    *("id", "decky_name", "host_uuid", "operation", "status", "outcome", "error"),
    *("started_at", "claimed_at", "completed_at", "updated_at"),
    *("attempt", "retry_of", "retry_id", "owner", "cancel_requested_at", "deliveries", "enqueued_at"),
)
_GAP = "  "
_INDENT = "    "
_LEAST_ERROR = 24
_LEAST_NAME = 8


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


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        heading: what stands above it.
        texts: a text a row.
        number: whether it is aligned to the right.
        may_drop: where there is no room, columns with the highest number go first; 0 stays.
        may_cut: whether long texts may be cut, and marked with an ellipsis, where there still is none.
        coloured: whether its texts are states, printed in their colours.
    """

    heading: str
    texts: Sequence[str]
    number: bool = False
    may_drop: int = 0
    may_cut: bool = False
    coloured: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.heading, *self.texts)))


def spans(row: Lifecycle, moment: datetime | None = None) -> Spans:
    """How long a row has been there.

    Args:
        row: from the store.
        moment: the time to measure open rows at, aware; default now.
    """
    at = None if moment is None else moment.isoformat()
    age, claimed, ended = seconds_since(row["started_at"], at), row["claimed_at"], row["completed_at"]
    if claimed is None:
        return Spans(age, None if ended else age, None)
    return Spans(age, seconds_since(row["started_at"], claimed), seconds_since(claimed, ended or at))


def public(row: Lifecycle, moment: datetime | None = None, away: Away = NONE_AWAY) -> dict[str, Any]:
    """A row as `--json` prints it: without its request, which may hold secrets, and with its spans."""
    age, wait, took = spans(row, moment)
    columns: Mapping[str, Any] = row
    return {name: columns[name] for name in _ROW_FIELDS} | {
        "age_s": age,
        "queue_wait_s": wait,
        "duration_s": took,
        "host_away": away.get(row["host_uuid"]) if row["status"] in OPEN else None,
    }


def to_json(value: object) -> str:
    """JSON, as all commands print it."""
    return json.dumps(value, indent=2)


def show_rows(
    rows: Sequence[Lifecycle], *, as_json: bool, whole_errors: bool = False, away: Away = NONE_AWAY
) -> None:
    """Print rows as a table, or as a JSON array.

    Args:
        rows: from the store.
        as_json: for scripts.
        whole_errors: on a terminal, print each error in full instead of its beginning.
        away: hosts that are not there.
    """
    if as_json:
        click.echo(to_json([public(row, away=away) for row in rows]))
        return
    for line in table(rows, terminal_width(), whole_errors=whole_errors, away=away):
        click.echo(line)


def print_table(columns: Sequence[Column]) -> None:
    """Print a table that fits its terminal."""
    for line in _lines(_fitted(columns, terminal_width())):
        click.echo(line.rstrip())


def say_empty(what: str) -> None:
    """Say on standard error that there is nothing to show, and what there is not."""
    click.echo(f"decnet-reaper: {what}", err=True)


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    rows: Sequence[Lifecycle],
    width: int | None,
    *,
    moment: datetime | None = None,
    whole_errors: bool = False,
    away: Away = NONE_AWAY,
) -> list[str]:
    """The lines of a table, coloured.

    Args:
        rows: from the store.
        width: columns to stay within; None for no limit.
        moment, whole_errors, away: as `spans` and `show_rows` take them.
    """
    columns = _fitted(_columns(rows, moment, away), width)
    errors = [printable(row["error"] or "") for row in rows]
    longest = max(map(len, errors), default=0)
    room = None if width is None else width - _width(columns) - len(_GAP)
    beside = room is None or longest <= room
    heading, *lines = _lines(columns)
    shown = [click.style(heading + (_GAP + "error" if longest and beside else ""), bold=True)]
    for row, line, error in zip(rows, lines, errors, strict=True):
        shown.append(f"{line}{_GAP}{error}" if error and beside else line.rstrip())
        if error and not beside and width is not None:
            shown += _beneath((row["error"] or "") if whole_errors else error, width, whole=whole_errors)
    return shown


def _columns(rows: Sequence[Lifecycle], moment: datetime | None, away: Away) -> list[Column]:
    measured = [spans(row, moment) for row in rows]
    hosts = [printable(row["host_uuid"] or "-") for row in rows]
    return [
        Column("id", [printable(row["id"]) for row in rows]),
        Column("decky", [printable(row["decky_name"]) for row in rows], may_cut=True),
        *([Column("host", hosts, may_cut=True)] if any(row["host_uuid"] for row in rows) else []),
        Column("operation", [row["operation"] for row in rows]),
        Column("state", [state_with_host(row, away) for row in rows], coloured=True),
        Column("age", [short_span(each.age) for each in measured], number=True, may_drop=1),
        Column("wait", [short_span(each.wait) for each in measured], number=True, may_drop=3),
        Column("took", [short_span(each.took) for each in measured], number=True, may_drop=2),
        Column("try", [str(row["attempt"]) for row in rows], number=True, may_drop=4),
    ]


def _fitted(columns: Sequence[Column], width: int | None) -> list[Column]:
    """The columns, made to fit: ids cut, then columns left out, then names cut."""
    fitted = list(columns)

    def excess() -> int:
        return _width(fitted) - (width or sys.maxsize)

    if excess() > 0:
        fitted = [
            column._replace(texts=[tail(text) for text in column.texts]) if column.heading == "id" else column
            for column in fitted
        ]
    for column in sorted(columns, key=lambda column: -column.may_drop):
        if excess() > 0 and column.may_drop:
            fitted.remove(column)
    for place, column in enumerate(fitted):
        if column.may_cut and (over := excess()) > 0:
            room = max(_LEAST_NAME, column.width - over)
            fitted[place] = column._replace(texts=[_cut(text, room) for text in column.texts])
    return fitted


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _lines(columns: Sequence[Column]) -> list[str]:
    """The heading, and a line a row."""
    headings = [column.heading for column in columns]
    rows = zip(*(column.texts for column in columns), strict=True)
    return [_GAP.join(_cells(columns, texts)) for texts in (headings, *rows)]


def _cells(columns: Sequence[Column], texts: Sequence[str]) -> list[str]:
    cells = []
    for column, text in zip(columns, texts, strict=True):
        cell = text.rjust(column.width) if column.number else text.ljust(column.width)
        colour = COLOURS.get(text.partition(",")[0]) if column.coloured else None
        cells.append(click.style(cell, fg=colour) if colour else cell)
    return cells


def _beneath(error: str, width: int, *, whole: bool) -> list[str]:
    room = max(_LEAST_ERROR, width - len(_INDENT))
    if whole:
        parts = [part for line in error.splitlines() for part in textwrap.wrap(printable(line), room)]
    else:
        parts = [_cut(error, room)]
    return [_INDENT + click.style(part, fg="red") for part in parts]
