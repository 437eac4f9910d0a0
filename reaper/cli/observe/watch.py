"""`decnet-reaper watch`: rows as they change; live on a terminal, a line for each change elsewhere."""

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import datetime

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from reaper.cli.output.away import hosts_away, state_with_host
from reaper.cli.output.table import public, table
from reaper.cli.selection import filter_options
from reaper.cli.session import with_repository
from repo.base import OPEN, BaseRepository, Filter, Lifecycle

_EVERY_S = 1.0


@click.command()
@filter_options(1000)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each change, for scripts.")
def command(wanted: Filter, as_json: bool) -> int:
    """A live table of rows, open ones first.

    Ctrl-C ends it. Piped, it prints a line for each change.

    \b
    Examples:
      decnet-reaper watch
      decnet-reaper watch --open --decky decky-01
      decnet-reaper watch --state failed --json | while read -r row; do ...; done
    """

    async def work(repository: BaseRepository) -> int:
        if as_json or not sys.stdout.isatty():
            await watch_changes(repository, wanted, as_json=as_json)
        else:
            await watch_live(repository, wanted)
        return 0

    try:
        return with_repository(work)
    except KeyboardInterrupt:
        return 0


async def newest(repository: BaseRepository, wanted: Filter) -> list[Lifecycle]:
    """The newest rows that pass a filter, open ones first."""
    still_open = [status for status in OPEN if status in (wanted["statuses"] or OPEN)]
    open_ones: Filter = {**wanted, "statuses": still_open}
    rows = await repository.list_lifecycles(**open_ones) if still_open else []
    rows = [*rows, *await repository.list_lifecycles(**wanted)]
    return list({row["id"]: row for row in rows}.values())[: wanted["limit"]]


async def watch_live(repository: BaseRepository, wanted: Filter) -> None:
    """Redraw a table once a second until cancelled."""
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            rows, away = await newest(repository, wanted), await hosts_away(repository)
            lines = [_summary(rows), "", *table(rows, console.width, away=away)]
            if len(lines) > console.height - 1:
                lines = [*lines[: console.height - 1], "..."]
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)
            await asyncio.sleep(_EVERY_S)


async def watch_changes(repository: BaseRepository, wanted: Filter, *, as_json: bool) -> None:
    """Print each row when it is first seen, and again at each change of its state, until cancelled. That its
    host goes or comes back is one, too."""
    known: dict[str, str] = {}
    while True:
        rows, away = await newest(repository, wanted), await hosts_away(repository)
        for row in sorted(rows, key=lambda row: str(row["updated_at"])):
            if known.get(row["id"]) != state_with_host(row, away):
                line = table([row], None, away=away)[-1]
                click.echo(json.dumps(public(row, away=away)) if as_json else line)
                sys.stdout.flush()
        known = {row["id"]: state_with_host(row, away) for row in rows}
        await asyncio.sleep(_EVERY_S)


def _summary(rows: Sequence[Lifecycle]) -> str:
    count = {status: sum(row["status"] == status for row in rows) for status in OPEN}
    clock = datetime.now().astimezone().strftime("%H:%M:%S")
    return f"{clock}  {count['running']} running, {count['pending']} pending; Ctrl-C ends this"
