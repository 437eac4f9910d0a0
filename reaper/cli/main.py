"""The command line: a table of commands, of which only the one that is called is imported.

Exit status: 0 done, 1 the operation failed, 2 bad usage or input, 3 store, queue, runtime or output
unavailable, 130 ended by Ctrl-C, 141 the reader of a pipe went away.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

import click
from click.exceptions import NoArgsIsHelpError
from click.shell_completion import CompletionItem

from reaper.cli import exit_status
from reaper.cli.output.streams import ReaderGone, open_streams


class Section(NamedTuple):
    """Commands that belong together.

    Attributes:
        title: as `--help` prints it.
        folder: where their files are.
        commands: what each does, in one line: the first sentence of its own help.
    """

    title: str
    folder: str
    commands: Mapping[str, str]


SECTIONS = (
    Section(
        "Operations",
        "operations",
        {
            "deploy": "Bring deckies up from a Compose document.",
            "mutate": "Change the services that deckies expose.",
            "teardown": "Take deckies down.",
            "retry": "Ask for the same again.",
            "cancel": "Cancel what is pending or running.",
        },
    ),
    Section(
        "What happens",
        "observe",
        {
            "deckies": "Show what each decky runs now.",
            "list": "List rows, newest first.",
            "status": "Show rows by id, errors in full.",
            "watch": "A live table of rows, open ones first.",
            "logs": "Print the log of a decky or an attempt.",
            "timeline": "Draw what the fleet did, a lane per decky.",
        },
    ),
    Section(
        "Daemons",
        "daemons",
        {
            "up": "Run everything in this terminal.",
            "worker": "Run one worker.",
            "reaper": "Run one reaper.",
            "web": "Show it all as a live page.",
            "demo": "Show it all at work, in half a minute.",
        },
    ),
    Section(
        "Care",
        "admin",
        {
            "hosts": "Show the hosts; add, remove or give up one.",
            "doctor": "Check each prerequisite, and say what to do.",
            "sweep": "Make one sweep now, without Redis.",
            "install": "Install systemd units, man pages, user.",
            "uninstall": "Remove what `install` installed.",
            "copy": "Copy every row of a store into an empty one.",
            "completion": "Print the completion script of a shell.",
        },
    ),
)
"""Here, so that `--help` and completion need not import the commands, which takes half a second."""


class Commands(click.Group):
    """Finds commands by their file, and lists them by what they are for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in SECTIONS for name in section.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        folder = next((section.folder for section in SECTIONS if cmd_name in section.commands), None)
        if folder is None:
            return None
        command: click.Command = importlib.import_module(f"reaper.cli.{folder}.{cmd_name}").command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = " or ".join(get_close_matches(args[0], self.list_commands(ctx)))
            raise click.UsageError(
                error.message.rstrip(".") + (f"; did you mean {near}?" if near else ""), ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in SECTIONS:
            with formatter.section(section.title):
                formatter.write_dl([*section.commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [item for section in SECTIONS for item in section.commands.items()]
        found = [CompletionItem(name, help=text) for name, text in commands if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="decnet-reaper")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Deploys, changes and takes down deckies, and records what became of each.

    Every operation is a row: pending, running, then succeeded or failed. A row never says that something runs
    which does not run any more, whatever is killed.

    \b
    Begin with:
      decnet-reaper up                                            in one terminal
      decnet-reaper deploy decky-01 --compose FILE --wait         in another
      decnet-reaper watch                                         in a third
      decnet-reaper COMMAND --help                                has examples
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False


def main() -> None:
    """Run the command line; every foreseeable error is one line on stderr and an exit status."""
    open_streams()
    try:
        sys.exit(cli.main(standalone_mode=False, prog_name="decnet-reaper"))
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(exit_status.BAD_INPUT)
    except click.Abort:
        sys.exit(exit_status.INTERRUPTED)
    except ReaderGone:
        sys.exit(exit_status.PIPE_CLOSED)  # as a program that SIGPIPE ends
    except click.ClickException as error:
        sys.exit(exit_status.report(_with_help(error), error.exit_code))
    except Exception as error:
        sys.exit(exit_status.report_error(error))


def _with_help(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message().rstrip('.')} (see {error.ctx.command_path} --help)"
    return error.format_message()
