"""`decnet-reaper doctor`."""

import click

from reaper.cli.options import json_option
from reaper.cli.session import run, settings_of_command


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Check each prerequisite, and say what to do.

    Exits with 3 if one that is needed fails. Run it as the user that the daemons run as.

    \b
    Examples:
      decnet-reaper doctor
      decnet-reaper doctor --json | jq 'map_values(select(.state != "ok"))'
    """
    settings = settings_of_command()
    from reaper.cli.admin.run_doctor import run_doctor

    return run(run_doctor(settings, as_json=as_json))
