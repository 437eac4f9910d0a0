"""`decnet-reaper logs`: what the log says of one lifecycle, one decky, or of all, for a person to read."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any, NamedTuple

import click

from reaper.cli.exit_status import BAD_INPUT, UNAVAILABLE, report
from reaper.cli.options import Since
from worker.logging.console import ConsoleLine, when

IDENTIFIERS = ("decnet-worker", "decnet-reaper", "decnet-reaper-sweep", "decnet-command")
"""What our lines are called in the journal (SyslogIdentifier=): daemons, the sweep, people's commands."""
LEVELS = ("debug", "info", "warning", "error")

Line = dict[str, Any]


class Wanted(NamedTuple):
    """Which lines to show.

    Attributes:
        about: an id, its last eight characters or more, or a decky's name; empty for all.
        level: the least level.
        since: the earliest time; None for any.
    """

    about: str
    level: str
    since: datetime | None

    def of(self, lines: Iterable[str]) -> Iterator[Line]:
        """The wanted lines; with an id, those of its retries too."""
        story: set[str] = set()
        for text in lines:
            line = _parse(text)
            if line is None or not self._in_time(line) or not self._mentions(line, story):
                continue
            story |= {str(line[name]) for name in ("lifecycle_id", "retry_id") if line.get(name)}
            if _rank(line) >= LEVELS.index(self.level):
                yield line

    def _mentions(self, line: Line, story: set[str]) -> bool:
        row = str(line.get("lifecycle_id") or "")
        if not self.about or row in story:
            return True
        known_end = len(self.about) >= 8 and row.endswith(self.about)
        return known_end or self.about in {row, line.get("decky_name")}

    def _in_time(self, line: Line) -> bool:
        if self.since is None:
            return True
        moment = _moment(str(line.get("timestamp")))
        return moment is not None and moment >= self.since


@click.command()
@click.argument("about", metavar="[ID|DECKY]", default="")
@click.option(
    "--file",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="Read this log instead of the journal; - for standard input.",
)
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="A duration such as 10m, or an ISO 8601 time (default: 1h, with an ID all).",
)
@click.option("--level", type=click.Choice(LEVELS), default="debug", help="The least level to show.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what the journal gets.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are, for scripts.")
def command(
    about: str, file: str | None, since: datetime | None, level: str, follow: bool, as_json: bool
) -> None:
    """Print the log of a decky or an attempt.

    In order, retries included; without an ID or a DECKY, of all. An ID may be given by its last eight
    characters, as other commands and this one print it. Read is the journal, where the units and the commands
    log; what `decnet-reaper up` logs stands in its terminal.

    \b
    Examples:
      decnet-reaper logs decky-01
      decnet-reaper logs 6b6c9d21 --follow
      decnet-reaper logs --since 10m --level warning
      decnet-reaper up 2>fleet.log, then decnet-reaper logs --file fleet.log decky-01
    """
    if file is not None and follow:
        raise click.UsageError("--follow reads the journal, not a file")
    earliest = since or (None if about or file else datetime.now(UTC) - timedelta(hours=1))
    wanted = Wanted(about, level, earliest)
    shown = 0
    with _file(file) if file is not None else _journal(earliest, follow=follow) as source:
        lines = wanted.of(source)
        ordered = lines if follow else sorted(lines, key=lambda line: str(line.get("timestamp")))
        for text in _rendered(ordered, as_json=as_json):
            click.echo(text)
            shown += 1
    if about and not shown:
        sys.exit(report(f"the log says nothing of {about}", BAD_INPUT))
    if not shown and not as_json:
        where = file or "the journal; what decnet-reaper up logs stands in its terminal"
        click.echo(f"decnet-reaper: nothing that was asked for is in {where}", err=True)


def _rendered(lines: Iterable[Line], *, as_json: bool) -> Iterator[str]:
    terminal = sys.stdout.isatty()
    render = ConsoleLine(colours=terminal, width=shutil.get_terminal_size().columns if terminal else 0)
    day = None
    for line in lines:
        if as_json:
            yield json.dumps(line)
            continue
        moment = when(line)
        if moment is not None and moment.date() != day:
            day = moment.date()
            yield f"{day:%A, %d %B %Y}"
        yield render(None, "", line)


@contextmanager
def _file(name: str) -> Iterator[Iterable[str]]:
    try:
        opened = click.open_file(name, encoding="utf-8", errors="replace")
    except OSError as error:
        sys.exit(report(f"{name} can't be read: {error.strerror}", BAD_INPUT))
    with opened as stream:
        yield stream


@contextmanager
def _journal(since: datetime | None, *, follow: bool) -> Iterator[Iterable[str]]:
    """The lines of the journal; journalctl(1) ends with us."""
    command = ["journalctl", "--quiet", "--output=cat", *(f"--identifier={name}" for name in IDENTIFIERS)]
    command += [f"--since=@{since.timestamp():.0f}"] if since else []
    command += ["--follow", "--lines=all"] if follow else []
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    except OSError:
        sys.exit(report("there is no journalctl here; name a log with --file", UNAVAILABLE))
    output: IO[str] | None = child.stdout
    try:
        yield output or ()
    finally:
        child.kill() if follow else None
        child.communicate()
    if child.returncode > 0:
        reason = "journalctl failed; root and the group systemd-journal may read the journal"
        sys.exit(report(reason, UNAVAILABLE))


def _parse(text: str) -> Line | None:
    start = text.find("{")
    # Whatever stands in front: a priority, or what another journalctl format or syslog prints.
    if start < 0:
        return None
    try:
        line = json.loads(text[start:])
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("event"), str) else None


def _rank(line: Line) -> int:
    level = str(line.get("level"))
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
