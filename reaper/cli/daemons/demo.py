"""`decnet-reaper demo`."""

import click

from reaper.cli.session import run, settings_of_command


@click.command()
@click.option("--keep", is_flag=True, help="Keep the demonstration's files, and say where.")
def command(keep: bool) -> int:
    """Show it all at work, in half a minute.

    Deploys, a mutate, a failure, and a worker killed in the middle. It works in a directory of its own
    and leaves nothing running.

    \b
    Examples:
      decnet-reaper demo
      DECNET_REAPER_RUNTIME=process decnet-reaper demo       without Docker
    """
    settings = settings_of_command()
    from reaper.cli.daemons.run_demo import run_demo

    return run(run_demo(settings, keep=keep))
