"""Completion in real shells on a real terminal: set up as documented, then keys are pressed."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.fleet import Fleet
from tests.support.needs import need
from tests.support.programs.terminal import Terminal

pytestmark = pytest.mark.anyio

CLEAR = "\x15"  # Ctrl-U


class Shell(NamedTuple):
    """How a shell is started without anybody's settings, and set up.

    Attributes:
        file: where the script belongs, below the home directory.
        begin: what is typed first.
    """

    command: list[str]
    file: str
    begin: str


SHELLS = {
    "bash": Shell(["bash", "--norc", "-i"], "decnet-reaper", "source ~/decnet-reaper"),
    "zsh": Shell(
        ["zsh", "-f", "-i"], ".zfunc/_decnet-reaper", "fpath+=~/.zfunc; autoload -U compinit; compinit -u"
    ),
    "fish": Shell(["fish", "-i"], ".config/fish/completions/decnet-reaper.fish", "true"),
}


@pytest.mark.parametrize("name", SHELLS)
async def test_commands_deckies_ids_choices_and_files_are_completed(fleet: Fleet, name: str) -> None:
    shell = SHELLS[name]
    need(name)
    status, script, _ = await fleet.run("completion", name)
    assert status == 0
    put(fleet.root / shell.file, script)
    put(fleet.root / "bin" / "decnet-reaper", f'#!/bin/sh\nexec {sys.executable} -m reaper "$@"\n', 0o755)
    put(fleet.root / "document.yaml", "")
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"))
        ended = await client.deploy("trap-02", fleet.document("trap-02"))
        await client.cancel(ended)
    async with Terminal(
        fleet,
        program=["setsid", "--ctty", "--wait", *shell.command],
        columns=200,
        HOME=str(fleet.root),
        XDG_CONFIG_HOME=str(fleet.root / ".config"),
        PATH=f"{fleet.root / 'bin'}:{os.environ['PATH']}",
    ) as terminal:
        terminal.types(f"{shell.begin}; cd; echo 'it 'is ready\n")
        await terminal.shows("it is ready")
        for keys, shown in (
            ("decnet-reaper mut\t", "mutate "),
            ("d\t", "decky-01 "),
            (f"{CLEAR}decnet-reaper mutate decky-01 --serv\t", "--services "),
            (f"{CLEAR}decnet-reaper cancel \t", lifecycle_id),  # the only open one
            (f"{CLEAR}decnet-reaper list --state succ\t", "succeeded "),
            (f"{CLEAR}decnet-reaper deploy decky-01 --compose doc\t", "document.yaml"),
        ):
            terminal.types(keys)
            await terminal.shows(shown)
        assert ended not in terminal.text
        if name != "bash":
            terminal.types(f"{CLEAR}decnet-reaper de\t\t")
            await terminal.shows("Show it all at work, in half a minute.")


def put(file: Path, text: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
