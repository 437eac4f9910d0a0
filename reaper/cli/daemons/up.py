"""`decnet-reaper up`."""

import click

from reaper.cli.session import run, settings_of_daemon


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="How many workers.")
def command(workers: int) -> int:
    """Run everything in this terminal.

    Store, queue, workers and reaper; Ctrl-C ends them in order.

    \b
    Examples:
      decnet-reaper up
      decnet-reaper up --workers 4
    """
    settings = settings_of_daemon()
    from reaper.cli.daemons.run_up import run_up

    return run(run_up(settings, workers))
