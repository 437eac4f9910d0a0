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

from reaper.cli.output.away import Away, hosts_away, state_with_host
from reaper.cli.output.table import public, table
from reaper.cli.selection import filter_options
from reaper.cli.session import with_repository
from repo.base import OPEN, BaseRepository, Filter, Lifecycle, Status

_EVERY_S = 1.0
_CHROME_LINES = 3


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
        watched = Watched(repository, wanted)
        if as_json or not sys.stdout.isatty():
            await watch_changes(watched, as_json=as_json)
        else:
            await watch_live(watched)
        return 0

    try:
        return with_repository(work)
    except KeyboardInterrupt:
        return 0


class Watched:
    """The newest rows that pass a filter, open ones first.

    Args:
        repository: the store.
        wanted: which rows.
    """

    def __init__(self, repository: BaseRepository, wanted: Filter) -> None:
        self._repository = repository
        self._wanted = wanted

    async def rows(self) -> list[Lifecycle]:
        """What is to be shown now."""
        statuses = self._wanted["statuses"]
        still_open = tuple(status for status in OPEN if status in (statuses or OPEN))
        rows = [*(await self._list(still_open) if still_open else []), *await self._list(statuses)]
        return list({row["id"]: row for row in rows}.values())[: self._wanted["limit"]]

    async def away(self) -> Away:
        """The hosts that are not there now."""
        return await hosts_away(self._repository)

    async def _list(self, statuses: Sequence[Status]) -> list[Lifecycle]:
        wanted: Filter = {**self._wanted, "statuses": statuses}
        return await self._repository.list_lifecycles(**wanted)


async def watch_live(watched: Watched) -> None:
    """Redraw a table once a second until cancelled."""
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            rows = await watched.rows()
            lines = [_summary(rows), "", *table(rows, console.width, away=await watched.away())]
            if len(lines) > console.height - 1:
                lines = [*lines[: console.height - 1], "..."]
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)
            await asyncio.sleep(_EVERY_S)


async def watch_changes(watched: Watched, *, as_json: bool) -> None:
    """Print each row when it is first seen, and again at each change of its state, until cancelled. That its
    host goes or comes back is one, too."""
    known: dict[str, str] = {}
    while True:
        rows, away = await watched.rows(), await watched.away()
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
