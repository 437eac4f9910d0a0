"""The reference for people, from the code: `python -m tests.docs.generate.reference > docs/reference.md`."""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator

import click
import msgspec
from sqlmodel import SQLModel

from reaper.cli import exit_status
from reaper.cli.main import cli
from reaper.settings import ReaperSettings, Seconds, SettingsError
from repo import errors as store
from repo.migrations.revision import HEAD, VERSION_TABLE
from repo.models.tables import DeckyDeployed, DeckyLifecycle
from repo.settings import as_setting
from repo.sqlite.guards import REFUSED
from worker.client import InvalidDocument, InvalidRequest
from worker.liveness.errors import LocksUnusable
from worker.queue import InvalidDSN, QueueUnavailable
from worker.runtimes.base import OperationFailed, OperationTimedOut, RuntimeUnavailable

_INTRODUCTION = """\
# Reference

Made by `python -m tests.docs.generate.reference > docs/reference.md`. What is logged: [events.md](events.md).
"""

_SETTINGS = """\
Each is looked up as `DECNET_REAPER_<NAME>` in the environment, then (those that may hold a secret) as a
systemd credential of that name, which root's own commands find as `/etc/credstore/decnet-reaper.<name>`
unless `DECNET_REAPER_CONFIG` is set, then in lower case in the TOML file that `DECNET_REAPER_CONFIG` names
(default `/etc/decnet-reaper/config.toml`, if it exists), then the default applies. Durations are numbers of
seconds, or have a unit: `500ms`, `30s`, `5m`, `1h`, `30d`.
"""

_DEFAULTS = {
    "state_dir": "`/var/lib/decnet-reaper` (root, its owner); as another user `~/.local/state/decnet-reaper`",
    "runtime_dir": "`/run/decnet-reaper` (root, its owner); as another user `$XDG_RUNTIME_DIR/decnet-reaper`",
    "database": "`STATE_DIR/decnet-reaper.db`",
    "redis": "`unix://RUNTIME_DIR/queue.sock`",
    "compose_command": "`docker compose`, else a `docker-compose` of version 2",
}


def markdown() -> str:
    """The whole page."""
    sections = {
        "Commands": _commands(),
        "Exit statuses": _table(
            ("status", "meaning"), [(str(status), text) for status, text in exit_status.MEANINGS.items()]
        ),
        "Settings": [_SETTINGS, *_settings()],
        "Errors": _errors(),
        "Schema": _schema(),
    }
    parts = [_INTRODUCTION]
    parts += [f"## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections.items()]
    return "\n".join(parts)


def _commands() -> Iterator[str]:
    rows = []
    with click.Context(cli, info_name="decnet-reaper", **cli.context_settings) as context:
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            if command is not None and not command.hidden:
                own = click.Context(command, context, info_name=name)
                usage = " ".join([name, *command.collect_usage_pieces(own)])
                rows.append((f"`{usage}`", command.get_short_help_str(200)))
    return _table(("command", "what it does"), rows)


def _settings() -> Iterator[str]:
    meanings = {
        name: text for kind in reversed(ReaperSettings.__mro__) for name, text in _attributes(kind).items()
    }
    rows = []
    for field in msgspec.structs.fields(ReaperSettings):
        default = _DEFAULTS.get(field.name) or _shown(field.default)
        rows.append((f"`{field.name.upper()}`", default, meanings[field.name]))
    return _table(("name", "default", "meaning"), rows)


def _shown(value: object) -> str:
    if isinstance(value, Seconds):
        return f"`{as_setting(value)}`"
    return "none" if value in (None, "") else f"`{value}`"


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring of a settings class says of each attribute."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.+(?:\n        .+)*)", text, re.MULTILINE)
    return {name: " ".join(meaning.split()).rstrip(".") for name, meaning in found}


def _errors() -> Iterator[str]:
    classes = [kind for kind in vars(store).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    classes += [SettingsError, InvalidRequest, InvalidDocument, InvalidDSN, QueueUnavailable, LocksUnusable]
    classes += [RuntimeUnavailable, OperationFailed, OperationTimedOut]
    rows = []
    for kind in classes:
        status = exit_status.of(kind(""))
        rows.append((f"`{kind.__module__}.{kind.__name__}`", _first_line(kind), str(status)))
    yield "One class each, one line each; the exit status is the command's."
    yield ""
    yield from _table(("error", "when", "exit status"), rows)


def _first_line(kind: type) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())


def _schema() -> Iterator[str]:
    yield f"Revision `{HEAD}`, in the table `{VERSION_TABLE}`. A newer one than the code knows is refused."
    yield "Times are UTC, `YYYY-MM-DD HH:MM:SS.ffffff`."
    yield ""
    yield from _columns(DeckyLifecycle)
    yield ""
    yield from _columns(DeckyDeployed)
    yield ""
    yield "The database refuses, whoever writes:"
    yield ""
    rows = [(statement, rule) for statement, rules in REFUSED.items() for rule in rules]
    yield from _table(("statement", "message"), rows)


def _columns(model: type[SQLModel]) -> Iterator[str]:
    table = model.metadata.tables[str(model.__tablename__)]
    yield f"`{table.name}`: {_first_line(model)}"
    yield ""
    rows = []
    for name, field in model.model_fields.items():
        column = table.columns[name]
        default = "" if field.is_required() or field.default is None else f"`{field.default}`"
        rows.append((f"`{name}`", "yes" if column.nullable else "", default, field.description or ""))
    yield from _table(("column", "null", "default", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for cells in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
