"""`decnet-reaper reaper`."""

import asyncio

import click

from reaper.cli.logging import settings_of_daemon
from reaper.daemon import run_reaper


@click.command()
def command() -> None:
    """Run one reaper.

    It closes each row whose worker is gone. Several may run.

    \b
    Examples:
      decnet-reaper reaper
      systemctl start decnet-reaper              after `decnet-reaper install`
    """
    asyncio.run(run_reaper(settings_of_daemon()))
