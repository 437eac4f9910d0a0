"""`decnet-reaper logs`: what the log says of one lifecycle, one decky, or of all, for a person to read."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click

from reaper.cli.exit_status import BAD_INPUT, report
from reaper.cli.observe.log_sources import file_lines, journal_lines, up_lines
from reaper.cli.options import Since
from reaper.cli.session import load_settings
from repo.settings import SYSTEM_STATE_DIR
from worker.logging.console import ConsoleLine, when

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
            if self.about:
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
        moment = when(line)
        return moment is not None and moment >= self.since


@click.command()
@click.argument("about", metavar="[ID|DECKY]", default="")
@click.option(
    "--file",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="Read this log instead; - for standard input.",
)
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="A duration such as 10m, or an ISO 8601 time (default: 1h, with an ID all).",
)
@click.option("--level", type=click.Choice(LEVELS), default="debug", help="The least level to show.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are, for scripts.")
def command(
    about: str, file: str | None, since: datetime | None, level: str, follow: bool, as_json: bool
) -> None:
    """Print the log of a decky or an attempt.

    All that was logged about it, in order, its retries included; without an ID or a DECKY, about everything
    in the last hour. The last eight characters of an id will do. Where the service is installed this reads
    the journal, else the log that `decnet-reaper up` keeps in the state directory.

    \b
    Examples:
      decnet-reaper logs decky-01
      decnet-reaper logs 6b6c9d21 --follow
      decnet-reaper logs --since 10m --level warning
      journalctl -o cat -u 'decnet-*' --since -1d | decnet-reaper logs --file - decky-01
    """
    if file is not None and follow:
        raise click.UsageError("--follow is for the journal or the log of up, not a file")
    earliest = since or (None if about or file else datetime.now(UTC) - timedelta(hours=1))
    wanted = Wanted(about, level, earliest)
    shown = 0
    where, source_of = _source(file, earliest, follow=follow)
    with source_of as source:
        lines = wanted.of(source)
        ordered = lines if follow else sorted(lines, key=lambda line: str(line.get("timestamp")))
        for text in _rendered(ordered, as_json=as_json):
            click.echo(text)
            shown += 1
    if about and not shown:
        sys.exit(report(f"nothing was logged about {about} in {where}", BAD_INPUT))
    if not shown and not as_json:
        click.echo(f"decnet-reaper: nothing like that was logged in {where}", err=True)


def _source(
    file: str | None, since: datetime | None, *, follow: bool
) -> tuple[str, AbstractContextManager[Iterable[str]]]:
    """What is read, in words, and its lines: a file, the log of an `up`, or the journal."""
    if file is not None:
        return "standard input" if file == "-" else file, file_lines(file)
    state_dir = load_settings().state_dir
    kept = state_dir / "up.log"
    service = state_dir == SYSTEM_STATE_DIR and Path("/etc/systemd/system/decnet-reaper.service").exists()
    if not service and _is_there(kept):
        return str(kept), up_lines(kept, follow=follow)
    return "the journal", journal_lines(since, follow=follow)


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # in a directory that this user may not look into
        return False


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
