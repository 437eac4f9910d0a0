"""`decnet-reaper worker`."""

import asyncio

import click

from reaper.cli.logging import settings_of_daemon
from worker.daemon import run_worker


@click.command()
def command() -> None:
    """Run one worker.

    It takes jobs off the queue and runs them, ten at a time unless set otherwise. SIGTERM lets it
    finish what it runs, for STOP_GRACE at most.

    \b
    Examples:
      decnet-reaper worker
      DECNET_REAPER_MAX_JOBS=4 decnet-reaper worker
      systemctl start decnet-worker@1            after `decnet-reaper install`
    """
    asyncio.run(run_worker(settings_of_daemon()))
