"""Which rows and deckies a command is about: arguments and filters, completed from the store; short ids.

What a shell offers after a Tab is never an error and never makes a store.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from reaper.cli.options import limit_option, since_option
from reaper.cli.session import load_settings
from repo.base import OPEN, BaseRepository, Filter, Lifecycle, Status
from repo.errors import InvalidLifecycle
from repo.factory import repository_of

F = TypeVar("F", bound=Callable[..., Any])

_OFFERED = 500
_SHORT = 8
_NEWEST = 5000


def _offer_deckies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The deckies of the newest rows."""
    names = sorted({row["decky_name"] for row in _newest()})
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _offer_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest ids, and what they are; for `cancel`, of open rows alone."""
    rows = _newest(only_open=ctx.info_name == "cancel")
    return [
        CompletionItem(row["id"], help=f"{row['operation']} of {row['decky_name']} {row['status']}")
        for row in rows
        if row["id"].startswith(incomplete)
    ]


def _newest(*, only_open: bool = False) -> list[Lifecycle]:
    async def ask() -> list[Lifecycle]:
        async with repository_of(load_settings(), create=False) as repository:
            return await repository.list_lifecycles(statuses=OPEN if only_open else (), limit=_OFFERED)

    try:
        return asyncio.run(ask())
    except Exception:
        return []  # whatever it is, the command itself will say it


def names_argument(*, required: bool = True) -> Callable[[F], F]:
    """Names of deckies."""
    metavar = "NAME..." if required else "[NAME]..."
    return click.argument(
        "names", metavar=metavar, nargs=-1, required=required, shell_complete=_offer_deckies
    )


def ids_argument(*, required: bool = True) -> Callable[[F], F]:
    """Ids of rows, or their last eight characters."""
    metavar = "ID..." if required else "[ID]..."
    return click.argument("ids", metavar=metavar, nargs=-1, required=required, shell_complete=_offer_ids)


def decky_option(meaning: str = "Only this decky.") -> Callable[[F], F]:
    """--decky."""
    return click.option("--decky", metavar="NAME", shell_complete=_offer_deckies, help=meaning)


def filter_options(most: int) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """--open, --state, --decky, --host, --since and --limit, together the argument `wanted`, a `Filter`."""

    def with_options(command: Callable[..., int]) -> Callable[..., int]:
        @click.option("--open", "only_open", is_flag=True, help="Only pending and running rows.")
        @click.option(
            "--state",
            "states",
            type=click.Choice(["pending", "running", "succeeded", "failed"]),
            multiple=True,
            help="Only rows in this state; may be repeated.",
        )
        @decky_option()
        @click.option("--host", metavar="UUID", help="Only deckies of this host.")
        @since_option()
        @limit_option(most)
        @wraps(command)
        def with_filter(
            only_open: bool,
            states: tuple[Status, ...],
            decky: str | None,
            host: str | None,
            since: datetime | None,
            limit: int,
            **more: Any,
        ) -> int:
            if only_open and states:
                raise click.UsageError("--open means --state pending --state running; give one or the other")
            statuses = OPEN if only_open else states
            return command(
                Filter(statuses=statuses, decky_name=decky, host_uuid=host, since=since, limit=limit), **more
            )

        return with_filter

    return with_options


async def whole_ids(repository: BaseRepository, given: Sequence[str]) -> list[str]:
    """The whole ids of those given by their last eight characters, as tables and the log print them.

    What is no end of an id among the newest rows stays as it is.

    Raises:
        InvalidLifecycle: several of the newest rows end so.
    """
    known = {row["id"] for row in await repository.get_lifecycle_by_ids(given, payload=False)}
    if all(text in known or len(text) < _SHORT for text in given):
        return list(given)
    newest = [row["id"] for row in await repository.list_lifecycles(limit=_NEWEST)]
    return [text if text in known else _ending(text, newest) for text in given]


def _ending(text: str, ids: Sequence[str]) -> str:
    found = [lifecycle_id for lifecycle_id in ids if len(text) >= _SHORT and lifecycle_id.endswith(text)]
    if len(found) > 1:
        raise InvalidLifecycle(f"{text} is the end of several ids: {', '.join(found[:5])}; give more of it")
    return found[0] if found else text
