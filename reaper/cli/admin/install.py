"""`decnet-reaper install`."""

from pathlib import Path

import click

from reaper.cli.options import dry_run_option, prefix_option


@click.command()
@prefix_option("written")
@dry_run_option
def command(prefix: Path, dry_run: bool) -> None:
    """Install systemd units, man pages, user.

    Twice in a row does no harm.

    \b
    Examples:
      decnet-reaper install --dry-run
      sudo decnet-reaper install
      decnet-reaper install --prefix build/image
    """
    from reaper.cli.admin.installation import InstallError, install

    try:
        click.echo("\n".join(install(prefix, dry_run=dry_run)))
    except InstallError as error:
        raise click.UsageError(str(error)) from None
