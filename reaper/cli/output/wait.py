"""Waiting for rows: how far they are, and how they ended, retries included."""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import click

from reaper.cli import exit_status
from reaper.cli.options import Wait
from reaper.cli.output.streams import OutputLost
from reaper.cli.output.table import public, spans, to_json
from repo.base import OPEN, Lifecycle
from repo.lifecycle import is_retry
from worker.client import LifecycleClient
from worker.clock import short_span
from worker.liveness.errors import LocksUnusable
from worker.liveness.lock_directory import LockDirectory
from worker.logging.console import printable, tail
from worker.runtimes.base import RuntimeAway, RuntimeUnavailable
from worker.runtimes.registry import make_runtime
from worker.settings import WorkerSettings

_LONGEST_PAUSE_S = 0.25
_NO_WORKER_S = 15.0
"""How long nothing runs on a host and its first pending row is not taken, until no worker is there."""


class GaveUp(Exception):
    """The waiting is over and the rows are not; says why, and what to do."""


async def follow(
    client: LifecycleClient, ids: Sequence[str], *, wait: Wait, as_json: bool, several: bool
) -> int:
    """Print what became of submitted rows.

    Args:
        client: where they were submitted.
        ids: the rows.
        wait: wait for their ends; on a terminal with live progress, piped with a line for each state.
        as_json: print JSON.
        several: print a list even if it is one row.

    Returns:
        The exit status: 0, 1 if one failed, or 3 if the waiting was given up.
    """
    begun = time.monotonic()
    waiting = _Waiting(client, ids, wait.timeout, quiet=as_json)
    gave_up = ""
    try:
        if wait.wanted:
            await waiting.until_ended()
    except GaveUp as error:
        gave_up = str(error)
    rows = await waiting.rows()
    try:
        _print(rows, wait=wait.wanted, as_json=as_json, several=several, gave_up=gave_up, begun=begun)
    except OutputLost as error:
        raise OutputLost(f"{error}; what was asked for is accepted as {', '.join(ids)}") from None
    if gave_up:
        return exit_status.report(gave_up, exit_status.UNAVAILABLE)
    return exit_status.FAILED if wait.wanted and any(row["status"] == "failed" for row in rows) else 0


def _print(
    rows: Sequence[Lifecycle], *, wait: bool, as_json: bool, several: bool, gave_up: str, begun: float
) -> None:
    if as_json:
        shown = [public(row) for row in rows]
        click.echo(to_json(shown if several else shown[0]))
    elif not wait:
        for row in rows:
            click.echo(f"{row['id']}  {printable(row['decky_name'])}" if several else row["id"])
    elif several:
        for row in rows:
            if row["status"] == "failed":
                click.echo(_summary(row))
        click.echo(f"{len(rows)} deckies: {_counts(rows)}, in {short_span(time.monotonic() - begun)}")
    elif not gave_up:
        click.echo(_summary(rows[0]))


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


class _Waiting:
    """Rows that are waited for; in place of one that was retried, its retry."""

    def __init__(
        self, client: LifecycleClient, ids: Sequence[str], timeout: float | None, *, quiet: bool
    ) -> None:
        self._client, self._repository = client, client.repository
        self._latest = list(ids)
        self._ended: dict[str, Lifecycle] = {}
        self._begun = self._moved_at = time.monotonic()
        self._timeout = timeout
        self._quiet = quiet or sys.stderr.isatty()
        self._states: dict[str, str] = {}

    async def rows(self) -> list[Lifecycle]:
        """The rows as they are now, in the order in which they were asked for."""
        by_id = {row["id"]: row for row in await self._repository.get_lifecycle_by_ids(self._latest)}
        return [by_id[lifecycle_id] for lifecycle_id in self._latest]

    async def until_ended(self) -> None:
        """Wait for all of them.

        Raises:
            GaveUp: no worker is there, or it took too long.
        """
        try:
            await self._poll()
        except asyncio.CancelledError:
            click.echo(f"decnet-reaper: no longer waiting, the work goes on: {self._hint()}", err=True)
            raise

    async def _poll(self) -> None:
        pause = 0.01
        async with AsyncExitStack() as terminal:
            shown = None
            if sys.stderr.isatty():
                # Here, since rich takes 0.1 s, which scripts need not wait for.
                from reaper.cli.output.progress_line import progress_line

                shown = await terminal.enter_async_context(progress_line(self._client, len(self._latest)))
            while open_rows := await self._look():
                if shown is not None:
                    await shown.update(open_rows, self._ended)
                await self._check_patience(open_rows)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE_S, pause * 1.5)

    async def _look(self) -> list[Lifecycle]:
        """Those that are still open, as they are now."""
        asked = [lifecycle_id for lifecycle_id in self._latest if lifecycle_id not in self._ended]
        rows = await self._repository.get_lifecycle_by_ids(asked, payload=False)
        named = [row["retry_id"] for row in rows if row["retry_id"] is not None]
        retries = await self._repository.get_lifecycle_by_ids(named, payload=False) if named else []
        for row in rows:
            if self._states.get(row["id"]) != row["status"]:
                self._states[row["id"]] = row["status"]
                self._moved_at = time.monotonic()
                self._print_state(row)
            if row["status"] in OPEN:
                continue
            retry = next((each for each in retries if each["id"] == row["retry_id"]), None)
            if retry is None or not is_retry(retry, of=row):
                self._ended[row["id"]] = row
            else:
                self._latest[self._latest.index(row["id"])] = retry["id"]
                return await self._look()
        return [row for row in rows if row["status"] in OPEN]

    def _print_state(self, row: Lifecycle) -> None:
        if self._quiet or (row["status"] not in OPEN and row["retry_id"] is None):
            return
        line = _state(row)
        if row["retry_id"] is not None:
            line += f": {printable(row['error'] or '')}; tried again as {tail(row['retry_id'])}"
        click.echo(line, err=True)

    async def _check_patience(self, open_rows: Sequence[Lifecycle]) -> None:
        now = time.monotonic()
        if self._timeout is not None and now - self._begun > self._timeout:
            raise GaveUp(f"not ended after {short_span(self._timeout)}; the work goes on: {self._hint()}")
        if now - self._moved_at > _NO_WORKER_S:
            if not await self._somebody_works(open_rows):
                raise GaveUp(await self._why_nobody_works(open_rows[0]))
            self._moved_at = now

    async def _why_nobody_works(self, row: Lifecycle) -> str:
        settings, what = self._client.settings, f"{row['operation']} of {row['decky_name']}"
        if row["host_uuid"] == settings.host_uuid:
            try:
                await make_runtime(settings).check()
            except RuntimeAway as error:
                return f"the {what} waits ({self._hint()}) until its runtime answers: {error}"
            except RuntimeUnavailable:
                pass  # or `up` runs its deckies as local processes
        return (
            f"no worker takes the {what}: is one running? See decnet-reaper doctor."
            f" It waits for one: {self._hint()}"
        )

    async def _somebody_works(self, open_rows: Sequence[Lifecycle]) -> bool:
        if await asyncio.to_thread(self._worker_is_here, {row["host_uuid"] for row in open_rows}):
            return True
        open_there = [
            row
            for host in {row["host_uuid"] for row in open_rows}
            for row in await self._repository.list_open_lifecycles(host)
        ]
        return any(row["status"] == "running" for row in open_there)

    def _worker_is_here(self, hosts: set[str | None]) -> bool:
        """Whether a worker of one of these hosts runs on this machine, as the kernel knows."""
        settings = self._client.settings
        try:
            return settings.host_uuid in hosts and LockDirectory.of(settings).runs("worker")
        except (LocksUnusable, OSError):
            return False

    def _hint(self) -> str:
        if len(self._latest) == 1:
            return f"decnet-reaper status {self._latest[0]}"
        return "decnet-reaper watch"


def _state(row: Lifecycle) -> str:
    return f"{row['operation']} of {printable(row['decky_name'])} {row['status']}"


def _counts(rows: Sequence[Lifecycle]) -> str:
    count = {
        status: sum(row["status"] == status for row in rows) for status in ("succeeded", "failed", *OPEN)
    }
    return ", ".join(f"{number} {status}" for status, number in count.items() if number or status not in OPEN)


def _summary(row: Lifecycle) -> str:
    line = f"{_state(row)} ({row['id']}, {_how_long(row)})"
    return line if row["error"] is None else f"{line}: {printable(row['error'])}"


def _how_long(row: Lifecycle) -> str:
    found = spans(row)
    attempt = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
    return ("never started" if found.took is None else short_span(found.took)) + attempt
