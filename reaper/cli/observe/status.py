"""`decnet-reaper status`."""

import click

from reaper.cli import exit_status
from reaper.cli.options import json_option
from reaper.cli.output.away import hosts_away
from reaper.cli.output.table import show_rows
from reaper.cli.selection import ids_argument, whole_ids
from reaper.cli.session import with_repository
from repo.base import BaseRepository


@click.command()
@ids_argument()
@json_option
def command(ids: tuple[str, ...], as_json: bool) -> int:
    """Show rows by id, errors in full.

    The last eight characters of an id will do. Exits with 2 if one is unknown.

    \b
    Examples:
      decnet-reaper status 019a1f0e-5d1c-7c3e-8a54-3d0f6b6c9d21
      decnet-reaper status 6b6c9d21 --json
    """

    async def work(repository: BaseRepository) -> int:
        wanted = await whole_ids(repository, ids)
        rows = await repository.get_lifecycle_by_ids(wanted)
        if rows or as_json:
            show_rows(rows, as_json=as_json, whole_errors=True, away=await hosts_away(repository))
        unknown = sorted(set(wanted) - {row["id"] for row in rows})
        if unknown:
            reason = f"there is no lifecycle {', '.join(unknown)}; decnet-reaper list shows those there are"
            return exit_status.report(reason, exit_status.BAD_INPUT)
        return 0

    return with_repository(work)
