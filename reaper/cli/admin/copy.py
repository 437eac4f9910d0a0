"""`decnet-reaper copy`: move a store from SQLite to PostgreSQL, or back."""

import asyncio
import json

import click

from reaper.cli.options import json_option
from reaper.cli.session import load_settings
from reaper.settings import ReaperSettings
from repo.factory import get_engine
from repo.migrations.copy import Copied, copy_store


@click.command()
@click.option("--from", "source", metavar="URL", help="The store to copy. [default: the one that is set]")
@click.option("--to", "target", metavar="URL", required=True, help="An empty store; made if it is not there.")
@json_option
def command(source: str | None, target: str, as_json: bool) -> int:
    """Copy every row of a store into an empty one.

    Stop the master and all daemons first: what is written meanwhile stays behind. What was copied is read
    again and compared. A password comes from the setting database_password, or as libpq takes it.

    \b
    Examples:
      decnet-reaper copy --to postgresql://decnet@db.example.org/decnet
      decnet-reaper copy --from postgresql://decnet@db.example.org/decnet --to /var/lib/decnet-reaper/back.db
    """
    settings = load_settings()
    copied = asyncio.run(_copy(settings, source or settings.database, target))
    if as_json:
        click.echo(json.dumps(copied._asdict()))
    else:
        click.echo(
            f"copied {copied.lifecycles:,} rows, and what {copied.deployed:,} deckies run; all are the same"
        )
    return 0


async def _copy(settings: ReaperSettings, source: str, target: str) -> Copied:
    before = get_engine(source, settings.database_password, create=False)
    after = get_engine(target, settings.database_password)
    await before.open()
    try:
        await after.open()
        try:
            return await copy_store(before, after)
        finally:
            await after.close()
    finally:
        await before.close()
