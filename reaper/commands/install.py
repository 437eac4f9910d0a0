"""`decnet-reaper install`."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("/"),
    show_default=True,
    help="The root of an image, where files are written and nothing is run.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
def command(prefix: Path, dry_run: bool) -> None:
    """Install systemd units, man pages, user.

    Twice in a row does no harm.

    \b
    Examples:
      decnet-reaper install --dry-run
      sudo decnet-reaper install
      decnet-reaper install --prefix build/image
    """
    from reaper.install import InstallError, install

    try:
        click.echo("\n".join(install(prefix, dry_run=dry_run)))
    except InstallError as error:
        raise click.UsageError(str(error)) from None
