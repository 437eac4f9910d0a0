"""`decnet-reaper uninstall`."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("/"),
    show_default=True,
    help="The root of an image, where files are removed and nothing is run.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
def command(prefix: Path, dry_run: bool) -> None:
    """Remove what `install` installed.

    Data, configuration and user stay.

    \b
    Examples:
      decnet-reaper uninstall --dry-run
      sudo decnet-reaper uninstall
    """
    from reaper.install import InstallError, uninstall

    try:
        click.echo("\n".join(uninstall(prefix, dry_run=dry_run)))
    except InstallError as error:
        raise click.UsageError(str(error)) from None
