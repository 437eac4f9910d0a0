"""`decnet-reaper reaper`."""

import click

from reaper.cli.session import run, settings_of_daemon


@click.command()
def command() -> None:
    """Run one reaper.

    It closes each row whose worker is gone. Several may run.

    \b
    Examples:
      decnet-reaper reaper
      systemctl start decnet-reaper              after `decnet-reaper install`
    """
    settings = settings_of_daemon()
    from reaper.daemon import run_reaper

    run(run_reaper(settings))
