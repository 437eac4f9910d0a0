"""What the shell offers after a Tab: deckies and ids from the store. Never an error, never a new store."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from repo.base import Row

_NEWEST = 500


def decky_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """The deckies of the newest rows."""
    from click.shell_completion import CompletionItem

    names = sorted({row["decky_name"] for row in _newest()})
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """The newest ids, and what they are; for `cancel`, of open rows alone."""
    from click.shell_completion import CompletionItem

    rows = _newest(only_open=ctx.info_name == "cancel")
    return [
        CompletionItem(row["id"], help=f"{row['operation']} of {row['decky_name']} {row['status']}")
        for row in rows
        if row["id"].startswith(incomplete)
    ]


def _newest(*, only_open: bool = False) -> "list[Row]":
    import asyncio
    from pathlib import Path

    from reaper.cli.session import load_settings
    from repo.base import OPEN
    from repo.factory import get_repository

    async def ask(database: str) -> "list[Row]":
        async with get_repository(url=database) as repository:
            return await repository.list_lifecycles(statuses=OPEN if only_open else (), limit=_NEWEST)

    try:
        database = load_settings().database
        return asyncio.run(ask(database)) if Path(database.removeprefix("sqlite:///")).exists() else []
    except Exception:
        return []  # whatever it is, the command itself will say it
