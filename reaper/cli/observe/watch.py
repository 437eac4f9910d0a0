"""`decnet-reaper watch`."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from reaper.cli.options import filter_options, limit_option, statuses_of
from reaper.cli.session import with_repository

if TYPE_CHECKING:
    from repo.base import BaseRepository, Status


@click.command()
@filter_options
@limit_option(1000)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each change, for scripts.")
def command(
    only_open: bool,
    states: "tuple[Status, ...]",
    decky: str | None,
    host: str | None,
    since: datetime | None,
    limit: int,
    as_json: bool,
) -> int:
    """A live table of rows, open ones first.

    Ctrl-C ends it. Piped, it prints a line for each change.

    \b
    Examples:
      decnet-reaper watch
      decnet-reaper watch --open --decky decky-01
      decnet-reaper watch --state failed --json | while read -r row; do ...; done
    """
    statuses = statuses_of(states, only_open=only_open)

    async def work(repository: "BaseRepository") -> int:
        from reaper.cli.observe.run_watch import Watched, watch_changes, watch_live

        watched = Watched(
            repository, statuses=statuses, decky_name=decky, host_uuid=host, since=since, limit=limit
        )
        if as_json or not sys.stdout.isatty():
            await watch_changes(watched, as_json=as_json)
        else:
            await watch_live(watched)
        return 0

    try:
        return with_repository(work)
    except KeyboardInterrupt:
        return 0
