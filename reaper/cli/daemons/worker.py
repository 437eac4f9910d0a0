"""`decnet-reaper worker`."""

import click

from reaper.cli.daemons.run_daemon import run_daemon
from worker.daemon import run_worker


@click.command()
def command() -> int:
    """Run one worker.

    It takes jobs off the queue and runs them, ten at a time unless set otherwise. SIGTERM lets it
    finish what it runs, for the setting stop_grace at most.

    \b
    Examples:
      decnet-reaper worker
      DECNET_REAPER_MAX_JOBS=4 decnet-reaper worker
      systemctl start decnet-worker@1            after `decnet-reaper install`
    """
    return run_daemon(run_worker)
