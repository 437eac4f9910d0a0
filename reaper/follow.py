"""Waiting for rows: what they wait for, how far they are, and how they ended, retries included."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from reaper.exit_status import FAILED
from reaper.show import public, span, spans, to_json
from repo.base import OPEN, BaseRepository, Row
from worker.console import printable
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE_S = 5.0
_LONGEST_PAUSE_S = 0.25


async def follow(
    repository: BaseRepository, ids: Sequence[str], *, wait: bool, as_json: bool, several: bool
) -> int:
    """Print what became of submitted rows.

    Args:
        repository: the store.
        ids: the rows.
        wait: wait for their ends; on a terminal, with live progress.
        as_json: print JSON.
        several: print a list even if it is one row.

    Returns:
        The exit status: 0, or 1 if one failed.
    """
    begun = time.monotonic()
    rows = await (_wait if wait else _rows)(repository, ids)
    if as_json:
        shown = [public(row) for row in rows]
        click.echo(to_json(shown if several else shown[0]))
    elif not wait:
        for row in rows:
            click.echo(f"{row['id']}  {row['decky_name']}" if several else row["id"])
    elif not several:
        click.echo(_told(rows[0]))
    else:
        failed = [row for row in rows if row["status"] == "failed"]
        for row in failed:
            click.echo(_told(row))
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


def waits_for(row: Row, open_rows: Iterable[Row]) -> str:
    """Why a pending row is not running yet, in a few words; "" where nothing is before it.

    Args:
        row: the pending row.
        open_rows: all open rows of the store.
    """
    before = [
        other for other in open_rows if other["id"] < row["id"] and other["host_uuid"] == row["host_uuid"]
    ]
    here = [other for other in before if other["decky_name"] == row["decky_name"]]
    if here:
        first = here[0]
        what = f"{row['decky_name']}'s {first['status']} {first['operation']}"
        return f"waiting for {what}" + (f" and {len(here) - 1} more" if len(here) > 1 else "")
    if before:
        running = sum(other["status"] == "running" for other in before)
        return f"waiting for a free worker; before it {running} running, {len(before) - running} pending"
    return ""


async def _rows(repository: BaseRepository, ids: Sequence[str]) -> list[Row]:
    by_id = {row["id"]: row for row in await repository.get_lifecycle_by_ids(ids)}
    return [by_id[lifecycle_id] for lifecycle_id in ids]


async def _wait(repository: BaseRepository, ids: Sequence[str]) -> list[Row]:
    """The terminal rows, in the order of `ids`; for one that was retried, its last retry's."""
    try:
        return await _ends(repository, list(ids))
    except asyncio.CancelledError:
        what = f"decnet-reaper status {ids[0]}" if len(ids) == 1 else "decnet-reaper watch"
        click.echo(f"decnet-reaper: no longer waiting, the work goes on: {what}", err=True)
        raise


async def _ends(repository: BaseRepository, latest: list[str]) -> list[Row]:
    ended: dict[str, Row] = {}
    pause = 0.01
    async with _progress(len(latest)) as report:
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
            if report is not None:
                pending = any(row["status"] == "pending" for row in rows)
                report.update(rows, ended, await repository.list_open_lifecycles() if pending else [])
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 1.5)


async def _retry_of(repository: BaseRepository, row: Row) -> Row | None:
    if row["status"] != "failed":
        return None
    later = await repository.list_lifecycles(
        decky_name=row["decky_name"], since=datetime.fromisoformat(row["started_at"]), limit=1000
    )
    return next((other for other in later if other["retry_of"] == row["id"]), None)


def _told(row: Row) -> str:
    told = f"{row['operation']} of {row['decky_name']} {row['status']} ({row['id']}, {_how_long(row)})"
    return told if row["error"] is None else f"{told}: {printable(row['error'])}"


def _how_long(row: Row) -> str:
    found = spans(row)
    attempt = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
    return ("never started" if found.took is None else span(found.took)) + attempt


class _Report:
    """The live progress of one row, or of many."""

    def __init__(self, progress: "Progress", task: "TaskID", total: int) -> None:
        self._progress, self._task, self._total = progress, task, total
        self._begun = time.monotonic()

    def update(self, rows: list[Row], ended: dict[str, Row], open_rows: list[Row]) -> None:
        """Show how far they are."""
        said = self._one(rows[0], open_rows) if self._total == 1 and rows else self._many(rows, ended)
        self._progress.update(self._task, description=said, completed=len(ended))

    def _one(self, row: Row, open_rows: list[Row]) -> str:
        told = f"{row['operation']} of {row['decky_name']} {row['status']}"
        if row["attempt"] > 1:
            told += f", attempt {row['attempt']}"
        if row["status"] == "running":
            return f"{told}, waited {span(spans(row).wait)}"
        why = waits_for(row, open_rows)
        if not why and time.monotonic() - self._begun > _PATIENCE_S:
            why = "no worker takes it, is one running? See decnet-reaper doctor"
        return f"{told}, {why}" if why else told

    def _many(self, rows: list[Row], ended: dict[str, Row]) -> str:
        running = sum(row["status"] == "running" for row in rows)
        pending = sum(row["status"] == "pending" for row in rows)
        failed = sum(row["status"] == "failed" for row in ended.values())
        return f"{running} running, {pending} pending" + (f", {failed} failed" if failed else "")


@asynccontextmanager
async def _progress(total: int) -> AsyncIterator[_Report | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    bar: list[ProgressColumn] = [BarColumn(bar_width=24), MofNCompleteColumn()] if total > 1 else []
    text = TextColumn("{task.description}", markup=False)
    columns = [SpinnerColumn("line"), *bar, text, TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Report(progress, progress.add_task("accepted", total=total), total)
