"""`decnet-reaper sweep`."""

import click

from reaper.commands.options import json_option
from reaper.commands.session import run, settings_of_daemon


@click.command()
@click.option(
    "--older-than", metavar="DURATION", help="Also give up rows that nobody started for so long (1h)."
)
@click.option("--after-stop", is_flag=True, help="For ExecStopPost=: only rows of the unit's run that ended.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@json_option
def command(older_than: str | None, after_stop: bool, dry_run: bool, as_json: bool) -> int:
    """Make one reap pass now, without Redis.

    Closes orphans and stale rows.

    \b
    Examples:
      decnet-reaper sweep --dry-run
      decnet-reaper sweep --older-than 10m
    """
    from reaper.command_sweep import run_sweep

    settings = settings_of_daemon()
    return run(run_sweep(settings, older_than, after_stop=after_stop, dry_run=dry_run, as_json=as_json))
