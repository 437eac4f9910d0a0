"""`decnet-reaper uninstall`."""

from pathlib import Path

import click

from reaper.cli.options import dry_run_option, prefix_option


@click.command()
@prefix_option("removed")
@dry_run_option
def command(prefix: Path, dry_run: bool) -> None:
    """Remove what `install` installed.

    Data, configuration and user stay.

    \b
    Examples:
      decnet-reaper uninstall --dry-run
      sudo decnet-reaper uninstall
    """
    from reaper.cli.admin.installation import InstallError, uninstall

    try:
        click.echo("\n".join(uninstall(prefix, dry_run=dry_run)))
    except InstallError as error:
        raise click.UsageError(str(error)) from None
