"""`decnet-reaper list`."""

import click

from reaper.cli.options import json_option
from reaper.cli.output.away import hosts_away
from reaper.cli.output.table import say_empty, show_rows
from reaper.cli.selection import filter_options
from reaper.cli.session import with_repository
from repo.base import BaseRepository, Filter


@click.command()
@filter_options(100_000)
@json_option
def command(wanted: Filter, as_json: bool) -> int:
    """List rows, newest first.

    Columns: age since acceptance, wait until the start, time that it took, number of the try. On a terminal
    that is too narrow for whole ids, their last eight characters stand for them, here and in other commands.
    Piped, nothing is cut. --json gives the same for scripts, see docs/command-line.md.

    \b
    Examples:
      decnet-reaper list --open
      decnet-reaper list --state failed --since 1h
      decnet-reaper list --decky decky-01 --limit 5
      decnet-reaper list --json | jq -r '.[] | select(.duration_s > 60) | .id'
    """

    async def work(repository: BaseRepository) -> int:
        rows = await repository.list_lifecycles(**wanted)
        if rows or as_json:
            show_rows(rows, as_json=as_json, away=await hosts_away(repository))
        else:
            filtered = any(value for name, value in wanted.items() if name != "limit")
            say_empty("no row is like that" if filtered else "there are no rows yet")
        return 0

    return with_repository(work)
