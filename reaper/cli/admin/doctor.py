"""`decnet-reaper doctor`: each prerequisite, checked, with what to do about it."""

import asyncio
import contextlib
import textwrap
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

import click

from reaper.cli.admin import checks
from reaper.cli.exit_status import UNAVAILABLE
from reaper.cli.logging import settings_of_command
from reaper.cli.options import json_option
from reaper.cli.output.table import terminal_width, to_json
from reaper.settings import ReaperSettings
from repo.errors import StoreError
from repo.factory import repository_of
from worker.liveness.errors import LocksUnusable
from worker.logging.console import printable
from worker.queue import InvalidDSN, QueueUnavailable
from worker.runtimes.base import RuntimeUnavailable

_CHECKS: Final[dict[str, Callable[[ReaperSettings], Awaitable[str]]]] = {
    "store": checks.store,
    "schema": checks.schema,
    "queue": checks.queue,
    "locks": checks.locks,
    "rows": checks.rows,
    "runtime": checks.runtime,
    "units": checks.units,
    "clock": checks.clock,
    "space": checks.space,
}
_WORDS: Final = {"ok": ("ok  ", "green"), "doubtful": ("note", "yellow"), "wrong": ("FAIL", "red")}
_INDENT: Final = " " * 14
_WRONG: Final = (
    *(checks.Wrong, StoreError, QueueUnavailable, InvalidDSN, LocksUnusable, RuntimeUnavailable, OSError),
)


class Finding(NamedTuple):
    """What a check found: its state, and a line that says what, and what to do."""

    state: Literal["ok", "doubtful", "wrong"]
    detail: str


@click.command()
@json_option
@click.option("--create", is_flag=True, help="First make the store, where none is there.")
def command(as_json: bool, create: bool) -> int:
    """Check each prerequisite, and say what to do.

    Exits with 3 if one that is needed fails. Run it as the user that the daemons run as.

    \b
    Examples:
      decnet-reaper doctor
      sudo -u decnet-reaper decnet-reaper doctor --create
      decnet-reaper doctor --json | jq 'map_values(select(.state != "ok"))'
    """
    return asyncio.run(run_doctor(settings_of_command(), as_json=as_json, create=create))


async def run_doctor(settings: ReaperSettings, *, as_json: bool, create: bool = False) -> int:
    """Run every check and print what came out; the exit status, 3 if something that is needed is missing."""
    if create:
        with contextlib.suppress(StoreError):  # the check of the store says it
            async with repository_of(settings, create=True):
                pass
    findings = {name: await _try(check, settings) for name, check in _CHECKS.items()}
    if as_json:
        click.echo(
            to_json(
                {
                    name: {"ok": state != "wrong", "state": state, "detail": detail}
                    for name, (state, detail) in findings.items()
                }
            )
        )
    else:
        width = terminal_width()
        for name, (state, detail) in findings.items():
            word, colour = _WORDS[state]
            line = f"{word} {name:8} {detail}"
            first, *more = (
                textwrap.wrap(
                    line, width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
                )
                if width
                else [line]
            )
            click.echo("\n".join([click.style(word, fg=colour) + first[len(word) :], *more]))
    return UNAVAILABLE if any(finding.state == "wrong" for finding in findings.values()) else 0


async def _try(check: Callable[[ReaperSettings], Awaitable[str]], settings: ReaperSettings) -> Finding:
    try:
        return Finding("ok", await check(settings))
    except checks.Doubtful as error:
        return Finding("doubtful", printable(str(error)))
    except _WRONG as error:
        return Finding("wrong", printable(str(error)))
