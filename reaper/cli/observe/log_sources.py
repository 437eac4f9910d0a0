"""Where `decnet-reaper logs` reads: the journal, what `decnet-reaper up` keeps, or a file."""

import fnmatch
import grp
import json
import pwd
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from repo.errors import DecnetReaperError
from repo.sqlite.files import SERVICE_USER

UNITS: Final = (
    *("decnet-worker@*.service", "decnet-reaper.service", "decnet-reaper-sweep.service"),
    "decnet-reaper-web.service",
)
"""journald itself says of a line which unit wrote it."""
COMMANDS: Final = "decnet-command"
"""What people's commands are called in the journal. Anybody may call himself so: the user is looked at."""
IDENTIFIERS: Final = ("decnet-worker", "decnet-reaper", "decnet-reaper-sweep", "decnet-reaper-web", COMMANDS)


class LogUnreadable(DecnetReaperError):
    """There is no log that can be read; says why, and what to do."""

    exit_status = 3


@contextmanager
def file_lines(name: str) -> Iterator[Iterable[str]]:
    """The lines of a file; - is standard input."""
    try:
        opened = click.open_file(name, encoding="utf-8", errors="replace")
    except OSError as error:
        raise click.UsageError(f"{name} can't be read: {error.strerror}") from None
    with opened as stream:
        yield stream


@contextmanager
def up_lines(log: Path, *, follow: bool) -> Iterator[Iterable[str]]:
    """The lines that an `up` has kept, the older file's too."""
    if follow:
        with _output(
            ["tail", "--follow=name", "--retry", "--quiet", "--lines=+1", str(log)], endless=True
        ) as lines:
            yield lines
    else:
        files = [file for file in (log.with_name(f"{log.name}.1"), log) if file.exists()]
        yield (line for file in files for line in file.read_text(errors="replace").splitlines())


@contextmanager
def journal_lines(since: datetime | None, *, follow: bool) -> Iterator[Iterable[str]]:
    """The lines of our units, and of commands of those who may use the service's store."""
    command = ["journalctl", "--quiet", "--output=json", "--all"]
    command += ["--output-fields=MESSAGE,_SYSTEMD_UNIT,_UID,SYSLOG_IDENTIFIER"]
    command += [f"--identifier={name}" for name in IDENTIFIERS]
    command += [f"--since=@{since.timestamp():.0f}"] if since else []
    command += ["--follow", "--lines=all"] if follow else []
    users = _users()
    with _output(command, endless=follow) as entries:
        yield (message for entry in entries if (message := _message(entry, users)) is not None)


def _message(entry: str, users: Collection[str]) -> str | None:
    """The message of a journal's entry, if it is from where it says; None for all others."""
    try:
        fields: dict[str, Any] = json.loads(entry)
    except ValueError:
        return None
    message, unit = fields.get("MESSAGE"), str(fields.get("_SYSTEMD_UNIT"))
    ours = any(fnmatch.fnmatchcase(unit, pattern) for pattern in UNITS)
    by_user = fields.get("SYSLOG_IDENTIFIER") == COMMANDS and fields.get("_UID") in users
    return message if isinstance(message, str) and (ours or by_user) else None


def _users() -> set[str]:
    """The ids of the users who may use the service's store, as the journal writes them."""
    found = {"0"}
    try:
        found.add(str(pwd.getpwnam(SERVICE_USER).pw_uid))
        found |= {str(pwd.getpwnam(name).pw_uid) for name in grp.getgrnam(SERVICE_USER).gr_mem}
    except KeyError:
        pass
    return found


@contextmanager
def _output(command: Sequence[str], *, endless: bool) -> Iterator[Iterable[str]]:
    """What a program prints, a text a line; it ends with us."""
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    except OSError:
        raise LogUnreadable(f"there is no {command[0]} here; name a log with --file") from None
    try:
        yield child.stdout or ()
    finally:
        child.kill() if endless else None
        child.communicate()
    if child.returncode > 0:
        raise LogUnreadable(
            f"{command[0]} failed: root and members of the group systemd-journal may read the journal"
        )
