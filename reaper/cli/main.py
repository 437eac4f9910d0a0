"""The command line: one group, whose commands are files of this package, imported when they are needed.

Exit status: 0 done, 1 the operation failed, 2 bad usage or input, 3 store, queue or runtime unavailable,
130 ended by Ctrl-C, 141 the reader of a pipe went away.
"""

import gc
import importlib
import os
import sys
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from reaper.cli import exit_status

SECTIONS = {
    "Operations": ("deploy", "mutate", "cancel"),
    "What happens": ("list", "status", "watch", "logs", "timeline"),
    "Daemons": ("up", "worker", "reaper", "demo"),
    "Care": ("doctor", "sweep", "install", "uninstall", "completion"),
}
_FOLDERS = {"Operations": "operations", "What happens": "observe", "Daemons": "daemons", "Care": "admin"}


def version() -> str:
    """Of the installed release."""
    from importlib import metadata  # takes longer than all else that --help needs

    try:
        return metadata.version("decnet-reaper")
    except metadata.PackageNotFoundError:
        return "unknown, of a checkout that is not installed"


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"{ctx.info_name}, version {version()}")
        ctx.exit()


class Commands(click.Group):
    """Finds commands by their file, and lists them by what they are for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        section = next((section for section, names in SECTIONS.items() if cmd_name in names), None)
        if section is None:
            return None
        module = importlib.import_module(f"reaper.cli.{_FOLDERS[section]}.{cmd_name}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = " or ".join(get_close_matches(args[0], self.list_commands(ctx)))
            raise click.UsageError(
                error.message.rstrip(".") + (f"; did you mean {near}?" if near else ""), ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(section):
                formatter.write_dl(
                    [(name, command.get_short_help_str(64)) for name, command in commands if command]
                )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # As a program that SIGPIPE ends; stdout is flushed once more at exit, into nothing.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(exit_status.PIPE_CLOSED)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Keeps decky lifecycles true.

    Deploys and mutates deckies; every row tells the truth within seconds, whatever is killed.

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
    gc.disable()  # a tenth of the start, since imports make much and drop little; `session.run` enables it
    try:
        sys.exit(cli.main(standalone_mode=False, prog_name="decnet-reaper"))
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(exit_status.BAD_INPUT)
    except click.Abort:
        sys.exit(exit_status.INTERRUPTED)
    except click.ClickException as error:
        sys.exit(exit_status.report(_with_help(error), error.exit_code))
    except Exception as error:
        sys.exit(exit_status.report_error(error))


def _with_help(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message().rstrip('.')} (see {error.ctx.command_path} --help)"
    return error.format_message()
