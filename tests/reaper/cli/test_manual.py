"""The man pages: what they say, and that man(1) renders them without a complaint."""

import os
import subprocess
from pathlib import Path

import click
import pytest

from reaper.cli.main import cli
from tests.docs.generate.manual import DIRECTORY, pages
from tests.support.needs import need

COMMANDS = cli.list_commands(click.Context(cli))


def shown(page: Path) -> str:
    """A page as man(1) shows it in 80 columns; it must find nothing to warn of."""
    need("man")
    command = ["man", "--warnings", "--encoding=utf-8", "--local-file", str(page)]
    environment = os.environ | {"MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_each_command_has_a_page_that_man_shows(name: str, tmp_path: Path) -> None:
    file = f"decnet-reaper-{name}.1".replace("-.", ".")
    (tmp_path / file).write_text(pages()[file])
    text = shown(tmp_path / file)
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{heading}\n" in text
    if name:
        assert "\nEXAMPLES\n" in text
        assert f"       decnet-reaper {name}" in text
    else:
        assert [command for command in COMMANDS if f"\n       {command}" not in text] == []
    assert "-h, --help" in text


def test_the_pages_are_current_and_there_is_no_other() -> None:
    assert set(pages()) == {"decnet-reaper.1"} | {f"decnet-reaper-{name}.1" for name in COMMANDS}
    shipped = {page.name: page.read_text() for page in DIRECTORY.iterdir()}
    assert shipped == pages(), "run python -m tests.docs.generate.manual"


def test_what_is_to_be_typed_can_be_copied(tmp_path: Path) -> None:
    page = tmp_path / "completion.1"
    page.write_text(pages()["decnet-reaper-completion.1"])
    text = shown(page)
    assert "> ~/.local/share/bash-completion/completions/decnet-reaper" in text
    cancel = tmp_path / "cancel.1"
    cancel.write_text(pages()["decnet-reaper-cancel.1"])
    assert "--json | jq -r '.[].id' | xargs" in shown(cancel)
