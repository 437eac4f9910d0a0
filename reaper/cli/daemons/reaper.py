"""`decnet-reaper reaper`."""

import click

from reaper.cli.daemons.run_daemon import run_daemon
from reaper.daemon import run_reaper


@click.command()
def command() -> int:
    """Run one reaper.

    It closes each row whose worker is gone. Several may run.

    \b
    Examples:
      decnet-reaper reaper
      systemctl start decnet-reaper              after `decnet-reaper install`
    """
    return run_daemon(run_reaper)
