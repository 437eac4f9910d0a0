"""Options that several commands take."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reaper.cli import complete

if TYPE_CHECKING:
    from repo.base import Status

F = TypeVar("F", bound=Callable[..., Any])


class Since(click.ParamType[datetime]):
    """A duration back from now, such as 10m, or an ISO 8601 time; becomes an aware datetime."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from repo.settings import Seconds

        if isinstance(value, datetime):
            return value
        try:
            return datetime.now(UTC) - timedelta(seconds=Seconds.parse(value))
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.fromisoformat(str(value)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r}: expected a duration such as 10m or 1h, or an ISO 8601 time", param, ctx)


class Duration(click.ParamType[float]):
    """A duration such as 10m or 1h; becomes seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from repo.settings import Seconds

        try:
            return Seconds.parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
host_option = click.option("--host", metavar="UUID", help="The host that the decky lives on.")
wait_option = click.option(
    "--wait", is_flag=True, help="Wait for the end, retries included; exit with 1 if it failed."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done.")
compose_option = click.option(
    "--compose",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="A Compose document (YAML or JSON); - for standard input.",
)
names_argument = click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.decky_names
)
ids_argument = click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete.ids)
since_option = click.option(
    "--since", type=Since(), metavar="WHEN", help="Accepted since then: 10m, 2h, 1d, or an ISO 8601 time."
)


def prefix_option(done: str) -> Callable[[F], F]:
    """--prefix, of a command that does this to files below it."""
    return click.option(
        "--prefix",
        type=click.Path(path_type=Path),
        metavar="DIR",
        default=Path("/"),
        show_default=True,
        help=f"The root of an image, where files are {done} and nothing is run.",
    )


def limit_option(most: int) -> Callable[[F], F]:
    """--limit, of a command that shows so many rows at most."""
    return click.option(
        "--limit", type=click.IntRange(1, most), default=50, show_default=True, help="At most so many rows."
    )


def filter_options(command: F) -> F:
    """--open, --state, --decky, --host and --since, as `statuses_of` and list_lifecycles take them."""
    for option in (
        since_option,
        click.option("--host", metavar="UUID", help="Only deckies of this host."),
        click.option("--decky", metavar="NAME", shell_complete=complete.decky_names, help="Only this decky."),
        click.option(
            "--state",
            "states",
            type=click.Choice(["pending", "running", "succeeded", "failed"]),
            multiple=True,
            help="Only rows in this state; may be repeated.",
        ),
        click.option("--open", "only_open", is_flag=True, help="Only pending and running rows."),
    ):
        command = option(command)
    return command


def statuses_of(states: "tuple[Status, ...]", *, only_open: bool) -> "tuple[Status, ...]":
    """The states that --state and --open ask for together."""
    if only_open and states:
        raise click.UsageError("--open means --state pending --state running; give one or the other")
    return ("pending", "running") if only_open else states
