"""Options that several commands take."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from repo.settings import Seconds

F = TypeVar("F", bound=Callable[..., Any])


# ParamType became generic with click 8.4, and DECNET's environment has 8.3.
class Since(click.ParamType):  # type: ignore[type-arg]
    """A duration back from now, such as 10m, or an ISO 8601 time; becomes an aware datetime."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
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


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration such as 10m or 1h; becomes seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return Seconds.parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
host_option = click.option("--host", metavar="UUID", help="The host that the decky lives on.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done.")
compose_option = click.option(
    "--compose",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="A Compose document (YAML or JSON); - for standard input.",
)


class Wait(NamedTuple):
    """Whether, and how long, a command waits for what it submitted.

    Attributes:
        wanted: wait for the end.
        timeout: seconds; None waits as long as a worker is there.
    """

    wanted: bool
    timeout: float | None


def wait_options(command: Callable[..., int]) -> Callable[..., int]:
    """--wait and --timeout, together the argument `wait`, a `Wait`."""

    @click.option(
        "--wait",
        is_flag=True,
        help="Wait for the end, retries included; exit with 1 if it failed, with 3 if no worker is there.",
    )
    @click.option(
        "--timeout",
        type=Duration(),
        metavar="DURATION",
        help="With --wait: exit with 3 after so long (5m); the work goes on.",
    )
    @wraps(command)
    def with_wait(*arguments: Any, wait: bool, timeout: float | None, **more: Any) -> int:
        if timeout is not None and not wait:
            raise click.UsageError("--timeout is for --wait")
        return command(*arguments, wait=Wait(wait, timeout), **more)

    return with_wait


def since_option(default: str | None = None) -> Callable[[F], F]:
    """--since, of a command that shows rows."""
    return click.option(
        "--since",
        type=Since(),
        metavar="WHEN",
        default=default,
        show_default=True,
        help="Accepted since then: 10m, 2h, 1d, or an ISO 8601 time.",
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


def limit_option(most: int, default: int = 50) -> Callable[[F], F]:
    """--limit, of a command that shows so many rows at most."""
    return click.option(
        "--limit",
        type=click.IntRange(1, most),
        default=default,
        show_default=True,
        help="At most so many rows.",
    )
