"""The man pages, one for each command, from what `--help` says: `python -m tests.docs.generate.manual`.

They are kept in man; a wheel carries them, and `decnet-reaper install` copies them.
"""

import inspect
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from reaper.cli import exit_status
from reaper.cli.main import SECTIONS, cli

PROGRAM = "decnet-reaper"
DIRECTORY = Path(__file__).parents[3] / "man"

_FILES = """\
.TP
.B /etc/decnet\\-reaper/config.toml
Settings; another file where $DECNET_REAPER_CONFIG names one.
.TP
.B /var/lib/decnet\\-reaper
The store, the deckies' documents and locks.
.TP
.B /run/decnet\\-reaper
The sockets of the reaper and of the embedded queue."""


def pages() -> dict[str, str]:
    """The text of each page of section 1, by its file's name, in roff for man(7)."""
    context = click.Context(cli, info_name=PROGRAM, **cli.context_settings)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    found = {f"{PROGRAM}.1": "\n".join(_page(cli, context)) + "\n"}
    for name, command in commands.items():
        if command is not None:
            own = click.Context(command, context, info_name=name)
            found[f"{PROGRAM}-{name}.1"] = "\n".join(_page(command, own)) + "\n"
    return found


def _page(command: click.Command, context: click.Context) -> Iterator[str]:
    about, *paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    name = context.command_path.replace(" ", "-")
    yield f'.TH {name.upper()} 1 "" "{PROGRAM} {version(PROGRAM)}" "{PROGRAM} manual"'
    yield from (".SH NAME", f"{_typed(name)} \\- {_text(about.rstrip('.'))}")
    usage = " ".join(command.collect_usage_pieces(context))
    yield from (".SH SYNOPSIS", f".B {_typed(context.command_path)}", _text(usage), ".SH DESCRIPTION")
    for paragraph in paragraphs:
        yield from _examples(paragraph) if paragraph.startswith("\b") else (_text(paragraph), ".PP")
    yield ".SH OPTIONS"
    for parameter in command.get_params(context):
        if (record := parameter.get_help_record(context)) and record[1]:
            yield from _entry(*record)
    if command is cli:
        yield from _commands()
        yield from (".SH FILES", _FILES)
    yield ".SH EXIT STATUS"
    for status, meaning in exit_status.MEANINGS.items():
        yield from _entry(str(status), meaning)
    also = [other for section in SECTIONS for other in section.commands] if command is cli else [""]
    pages = [f"{PROGRAM}-{other}".rstrip("-") for other in also]
    yield from (".SH SEE ALSO", " ,\n".join(f".BR {_typed(page)} (1)" for page in pages).replace(") ,", "),"))


def _commands() -> Iterator[str]:
    for section in SECTIONS:
        yield f".SH {section.title.upper()}"
        for name, text in section.commands.items():
            yield from _entry(name, text)


def _entry(term: str, text: str) -> Iterator[str]:
    yield from (".TP", f".B {_typed(term)}", _text(text))


def _examples(paragraph: str) -> Iterator[str]:
    title, *lines = paragraph.removeprefix("\b").strip("\n").splitlines()
    yield from (f".SH {title.strip().rstrip(':').upper()}", ".nf", *map(_typed, lines), ".fi")


def _text(text: str) -> str:
    """Running text, filled by whoever shows it."""
    return _typed(" ".join(text.split()))


def _typed(text: str) -> str:
    """Text as it is to be typed, hyphens too; nothing in it is an instruction to roff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    return ("\\&" if escaped.startswith(".") else "") + escaped.replace("~", "\\(ti").replace("`", "\\(ga")


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for old in DIRECTORY.iterdir():
        old.unlink()
    for page, roff in pages().items():
        (DIRECTORY / page).write_text(roff)
