"""`decnet-reaper timeline`."""

from datetime import datetime
from pathlib import Path

import click

from reaper.cli import exit_status
from reaper.cli.options import json_option, limit_option, since_option
from reaper.cli.output.away import hosts_away
from reaper.cli.output.table import to_json
from reaper.cli.selection import decky_option
from reaper.cli.session import with_repository
from repo.base import BaseRepository


@click.command()
@since_option("1h")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("timeline.html"),
    show_default=True,
    help="The file to write; its ending says what: .html, .svg or .png.",
)
@decky_option()
@click.option("--host", metavar="UUID", help="Only deckies of this host.")
@limit_option(5000, default=500)
@json_option
def command(
    since: datetime, output: Path, decky: str | None, host: str | None, limit: int, as_json: bool
) -> int:
    """Draw what the fleet did, a lane per decky.

    Waits and runs are bars in the colour of their outcome, sweeps and retries are marked. The HTML page
    has the table beneath the picture and needs nothing else.
    Needs matplotlib: pip install matplotlib.

    \b
    Examples:
      decnet-reaper timeline
      decnet-reaper timeline --since 1d -o fleet.svg
      decnet-reaper timeline --decky decky-01 -o decky-01.png
    """

    if output.suffix not in (".html", ".svg", ".png"):
        raise click.UsageError(f"{output} must end in .html, .svg or .png")

    try:
        # Here, since matplotlib is an extra, and takes a second.
        from reaper.cli.output.timeline.page import write_timeline
    except ImportError as error:
        reason = f"{error.name} is missing: pip install matplotlib"
        return exit_status.report(reason, exit_status.UNAVAILABLE)

    async def work(repository: BaseRepository) -> int:
        rows = await repository.list_lifecycles(decky_name=decky, host_uuid=host, since=since, limit=limit)
        try:
            away = await hosts_away(repository)
            write_timeline(output, rows, now=datetime.now().astimezone(), cut=len(rows) == limit, away=away)
        except OSError as error:
            return exit_status.report(f"{output} can't be written: {error.strerror}", exit_status.BAD_INPUT)
        if as_json:
            click.echo(to_json({"file": str(output), "rows": len(rows), "since": since.isoformat()}))
        else:
            click.echo(f"{output}: {len(rows)} operations since {since.astimezone():%Y-%m-%d %H:%M}")
        return 0

    return with_repository(work)
