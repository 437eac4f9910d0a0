"""`decnet-reaper copy`: move a store from SQLite to PostgreSQL, or back."""

import asyncio
import json
from typing import get_args

import click
import msgspec

from reaper.cli.options import json_option
from reaper.cli.session import load_settings
from reaper.settings import ReaperSettings
from repo.errors import StoreUnusable
from repo.factory import get_engine
from repo.migrations.copy import Copied, copy_store
from repo.sqlite.location import sqlite_path
from worker.liveness.lock_directory import Daemon, LockDirectory, find_lock_directory


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
        _refuse_beside_daemons(msgspec.structs.replace(settings, database=source))
        await after.open()
        try:
            return await copy_store(before, after)
        finally:
            await after.close()
    finally:
        await before.close()


def _refuse_beside_daemons(settings: ReaperSettings) -> None:
    # Only the locks of a file lie beside it; with a file that no daemon ever used there are none.
    if sqlite_path(settings.database) is None or not find_lock_directory(settings).exists():
        return
    directory = LockDirectory.of(settings)
    for daemon in get_args(Daemon):
        if directory.runs(daemon):
            raise StoreUnusable(
                f"{settings.database_name}: `decnet-reaper {daemon}` runs on it, and what that writes would"
                " stay behind; stop the master and all daemons first"
            )
