"""`decnet-reaper sweep`."""

import click

from reaper.cli.options import Duration, dry_run_option, json_option
from reaper.cli.session import load_settings, run, settings_of_daemon


@click.command()
@click.option(
    "--older-than",
    type=Duration(),
    metavar="DURATION",
    help="Also give up rows that nobody started for so long (1h).",
)
@click.option("--after-stop", is_flag=True, help="For ExecStopPost=: only rows of the unit's run that ended.")
@dry_run_option
@json_option
def command(older_than: float | None, after_stop: bool, dry_run: bool, as_json: bool) -> int:
    """Make one reap pass now, without Redis.

    Closes orphans and stale rows.

    \b
    Examples:
      decnet-reaper sweep --dry-run
      decnet-reaper sweep --older-than 10m
    """
    ended_run = _ended_run() if after_stop else None
    if ended_run is not None and not dry_run and _left_to_the_reaper(ended_run):
        return 0

    settings = settings_of_daemon()
    from reaper.cli.admin.run_sweep import run_sweep

    return run(run_sweep(settings, older_than, ended_run=ended_run, dry_run=dry_run, as_json=as_json))


def _ended_run() -> str:
    from reaper.settings import SettingsError
    from worker.systemd import invocation_id

    if (ended_run := invocation_id()) is None:
        raise SettingsError("--after-stop is for a unit's ExecStopPost=, and systemd does not run this")
    return ended_run


def _left_to_the_reaper(ended_run: str) -> bool:
    # systemd starts the worker again when this ends; without the sweep's own imports that is 0.4 s earlier.
    from worker.liveness.signals import Signals
    from worker.systemd import death_reason

    return Signals(load_settings().runtime_dir).ended(ended_run, death_reason())
