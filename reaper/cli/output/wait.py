"""Waiting for rows: what they wait for, how far they are, and how they ended, retries included."""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime

import click

from reaper.cli.exit_status import FAILED
from reaper.cli.output.table import public, span, spans, to_json
from repo.base import OPEN, BaseRepository, Lifecycle
from worker.client import LifecycleClient
from worker.logging.console import printable
from worker.settings import WorkerSettings

_LONGEST_PAUSE_S = 0.25


async def follow(
    client: LifecycleClient, ids: Sequence[str], *, wait: bool, as_json: bool, several: bool
) -> int:
    """Print what became of submitted rows.

    Args:
        client: where they were submitted.
        ids: the rows.
        wait: wait for their ends; on a terminal, with live progress.
        as_json: print JSON.
        several: print a list even if it is one row.

    Returns:
        The exit status: 0, or 1 if one failed.
    """
    begun = time.monotonic()
    rows = await (_wait(client, ids) if wait else _rows(client.repository, ids))
    if as_json:
        shown = [public(row) for row in rows]
        click.echo(to_json(shown if several else shown[0]))
    elif not wait:
        for row in rows:
            click.echo(f"{row['id']}  {row['decky_name']}" if several else row["id"])
    elif not several:
        click.echo(_summary(rows[0]))
    else:
        failed = [row for row in rows if row["status"] == "failed"]
        for row in failed:
            click.echo(_summary(row))
        took = span(time.monotonic() - begun)
        click.echo(
            f"{len(rows)} deckies: {len(rows) - len(failed)} succeeded, {len(failed)} failed, in {took}"
        )
    return FAILED if wait and any(row["status"] == "failed" for row in rows) else 0


def warn_of_host(settings: WorkerSettings, host_uuid: str | None) -> None:
    """Say so if no worker with these settings would take an operation on that host."""
    if host_uuid != settings.host_uuid:
        theirs = "the master's own deckies" if host_uuid is None else f"host {host_uuid}"
        ours = "the master's own deckies" if settings.host_uuid is None else f"host {settings.host_uuid}"
        click.echo(
            f"decnet-reaper: warning: this installation serves {ours}; what is accepted for {theirs}"
            " stays pending until a worker there takes it",
            err=True,
        )


async def _rows(repository: BaseRepository, ids: Sequence[str]) -> list[Lifecycle]:
    by_id = {row["id"]: row for row in await repository.get_lifecycle_by_ids(ids)}
    return [by_id[lifecycle_id] for lifecycle_id in ids]


async def _wait(client: LifecycleClient, ids: Sequence[str]) -> list[Lifecycle]:
    """The terminal rows, in the order of `ids`; for one that was retried, its last retry's."""
    try:
        return await _ends(client, list(ids))
    except asyncio.CancelledError:
        what = f"decnet-reaper status {ids[0]}" if len(ids) == 1 else "decnet-reaper watch"
        click.echo(f"decnet-reaper: no longer waiting, the work goes on: {what}", err=True)
        raise


async def _ends(client: LifecycleClient, latest: list[str]) -> list[Lifecycle]:
    repository, ended = client.repository, dict[str, Lifecycle]()
    pause = 0.01
    async with AsyncExitStack() as terminal:
        shown = None
        if sys.stderr.isatty():
            # Here, since rich takes 0.1 s, which scripts need not wait for.
            from reaper.cli.output.progress_line import progress_line

            shown = await terminal.enter_async_context(progress_line(client, len(latest)))
        while True:
            asked = [lifecycle_id for lifecycle_id in latest if lifecycle_id not in ended]
            rows = await repository.get_lifecycle_by_ids(asked)
            for row in rows:
                if row["status"] not in OPEN:
                    retry = await _retry_of(repository, row)
                    if retry is None:
                        ended[row["id"]] = row
                    else:
                        latest[latest.index(row["id"])] = retry["id"]
            if all(lifecycle_id in ended for lifecycle_id in latest):
                return [ended[lifecycle_id] for lifecycle_id in latest]
            if shown is not None:
                await shown.update(rows, ended)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 1.5)


async def _retry_of(repository: BaseRepository, row: Lifecycle) -> Lifecycle | None:
    if row["status"] != "failed":
        return None
    later = await repository.list_lifecycles(
        decky_name=row["decky_name"], since=datetime.fromisoformat(row["started_at"]), limit=1000
    )
    return next((other for other in later if other["retry_of"] == row["id"]), None)


def _summary(row: Lifecycle) -> str:
    line = f"{row['operation']} of {row['decky_name']} {row['status']} ({row['id']}, {_how_long(row)})"
    return line if row["error"] is None else f"{line}: {printable(row['error'])}"


def _how_long(row: Lifecycle) -> str:
    found = spans(row)
    attempt = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
    return ("never started" if found.took is None else span(found.took)) + attempt
