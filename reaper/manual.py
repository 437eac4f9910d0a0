"""Writes the man pages, one for each command, from what `--help` says: python -m reaper.manual DIRECTORY.

A step of building a package; needs click-man (the extra `dev`).
"""

import re
import sys
from importlib import metadata
from pathlib import Path

import click

from reaper.cli import cli

_INDENTED = re.compile(r"(?:^ +\S.*\n?)+", re.MULTILINE)


def write_pages(directory: Path, version: str) -> list[Path]:
    """Write the pages of section 1.

    Args:
        directory: made if it is missing.
        version: which release they are of.

    Returns:
        Their files.
    """
    from click_man.core import write_man_pages  # type: ignore[import-untyped]

    directory.mkdir(parents=True, exist_ok=True)
    context = click.Context(cli, info_name="decnet-reaper")
    for name in cli.list_commands(context):
        # click-man looks at the commands that a group holds, not at those that it finds when asked.
        if (command := cli.get_command(context, name)) is not None:
            cli.add_command(command, name)
    write_man_pages("decnet-reaper", cli, version=version, target_dir=str(directory))
    pages = sorted(directory.glob("decnet-reaper*.1"))
    for page in pages:
        page.write_text(_INDENTED.sub(_as_it_stands, page.read_text()))
    return pages


def _as_it_stands(examples: re.Match[str]) -> str:
    """Examples are not to be filled, and their hyphens are to be typed."""
    text = examples[0].rstrip("\n").replace("\\-", "-").replace("-", "\\-")
    return f".nf\n{text}\n.fi\n"


if __name__ == "__main__":
    for file in write_pages(Path(sys.argv[1]), metadata.version("decnet-reaper")):
        click.echo(file)
