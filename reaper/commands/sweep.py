"""`decnet-reaper sweep`."""

import click

from reaper.commands.options import json_option
from reaper.commands.session import run, settings_of_daemon


@click.command()
@click.option(
    "--older-than", metavar="DURATION", help="Also give up rows that nobody started for so long (1h)."
)
@click.option("--owner-pid", type=int, help="Only rows of the worker with this process id.")
@click.option("--because", default="", metavar="TEXT", help="What ended that worker, such as oom-kill.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@json_option
def command(older_than: str | None, owner_pid: int | None, because: str, dry_run: bool, as_json: bool) -> int:
    """Make one reap pass now, without Redis.

    Closes orphans and stale rows.

    \b
    Examples:
      decnet-reaper sweep --dry-run
      decnet-reaper sweep --older-than 10m
    """
    from reaper.command_sweep import run_sweep

    settings = settings_of_daemon()
    return run(run_sweep(settings, older_than, owner_pid, because, dry_run=dry_run, as_json=as_json))
