"""Rows for people and for scripts."""

import asyncio
import json
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from repo.base import OPEN, Row
from worker.client import LifecycleClient
from worker.execute import seconds_since

_COLOURS = {"pending": "yellow", "running": "cyan", "succeeded": "green", "failed": "red"}


def public(row: Row) -> dict[str, Any]:
    """A row without its request, which may hold secrets."""
    return {name: value for name, value in row.items() if name != "payload"}


def show_rows(rows: list[Row], *, as_json: bool) -> None:
    """Print rows as a table, or as a JSON array."""
    if as_json:
        click.echo(json.dumps([public(row) for row in rows], indent=2))
        return
    console = Console()
    if console.is_terminal:
        console.print(table(rows))
    else:
        Console(width=160).print(table(rows))


def table(rows: list[Row]) -> Table:
    """The table that people read."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "decky", "operation", "status", "try", "age", "took"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("error", overflow="ellipsis", no_wrap=True)
    for row in rows:
        shown.add_row(
            row["id"],
            row["decky_name"],
            row["operation"],
            Text(row["status"], style=_COLOURS[row["status"]]),
            str(row["attempt"]),
            span(seconds_since(row["started_at"])),
            _took(row),
            Text(" ".join((row["error"] or "").split())),
        )
    return shown


def span(seconds: float) -> str:
    """Seconds, short: 0.4s, 12s, 3m, 2h, 5d."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _took(row: Row) -> str:
    if row["claimed_at"] is None:
        return "-"
    seconds = seconds_since(row["claimed_at"])
    return span(seconds if row["completed_at"] is None else seconds - seconds_since(row["completed_at"]))


async def follow(client: LifecycleClient, lifecycle_id: str, *, wait: bool, as_json: bool) -> int:
    """Say what became of a submitted row.

    Returns:
        The exit status: 0, or 1 if it failed.
    """
    row = await client.wait(lifecycle_id) if wait else await client.get(lifecycle_id)
    if as_json:
        click.echo(json.dumps(public(row), indent=2))
    elif not wait:
        click.echo(lifecycle_id)
    else:
        told = f"{row['operation']} of {row['decky_name']} {row['status']} ({lifecycle_id}, {_took(row)})"
        click.echo(told if row["error"] is None else f"{told}: {row['error']}")
    return 1 if wait and row["status"] == "failed" else 0


async def watch_rows(client: LifecycleClient, limit: int) -> None:
    """Redraw the newest rows once a second until interrupted."""
    with Live(table([]), refresh_per_second=4, screen=Console().is_terminal) as live:
        while True:
            rows = await client.repository.list_lifecycles(statuses=OPEN, limit=limit)
            closed = await client.repository.list_lifecycles(limit=limit)
            seen = {row["id"]: row for row in [*rows, *closed]}
            live.update(table(list(seen.values())[:limit]))
            await asyncio.sleep(1)
