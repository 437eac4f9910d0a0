"""What is shown on a terminal while somebody waits: one line that says how far the rows are."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from reaper.cli.output.table import spans
from repo.base import Lifecycle
from worker.client import LifecycleClient
from worker.clock import short_span
from worker.logging.console import printable

_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.25
_LEAST_WAIT_S = 1.0
_WIDTH_FOR_BAR = 80


class ProgressLine:
    """The line for one row, or for many: state, elapsed, and what the runtime does now.

    Args:
        client: where the rows are.
        progress, task: where the line is.
        total: how many rows.
    """

    def __init__(self, client: LifecycleClient, progress: Progress, task: TaskID, total: int) -> None:
        self._client, self._progress, self._task, self._total = client, progress, task, total
        self._begun = time.monotonic()
        self._running: dict[str, Lifecycle] = {}

    async def update(self, rows: Sequence[Lifecycle], ended: dict[str, Lifecycle]) -> None:
        """Show how far they are.

        Args:
            rows: those that had not ended at the last look.
            ended: those that have, by the id that they were waited for.
        """
        self._running = {row["id"]: row for row in rows if row["status"] == "running"}
        state = await self._one(rows[0]) if self._total == 1 and rows else self._many(rows, ended)
        self._progress.update(self._task, description=state, completed=len(ended))

    async def look(self) -> None:
        """Show the newest line of what runs, until cancelled. Redis may be away or slow meanwhile."""
        known: dict[str, str] = {}
        while True:
            running = self._running
            lines = await self._client.progress([*running.values()])
            if news := [
                lifecycle_id for lifecycle_id, line in lines.items() if known.get(lifecycle_id) != line
            ]:
                doing = in_short(lines[news[-1]], running[news[-1]]["decky_name"])
                self._progress.update(self._task, doing=doing)
            elif not lines:
                self._progress.update(self._task, doing="")
            known = lines
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _one(self, row: Lifecycle) -> str:
        line = f"{row['operation']} of {row['decky_name']} {row['status']}"
        if row["attempt"] > 1:
            line += f", attempt {row['attempt']}"
        if row["status"] != "pending":
            wait = spans(row).wait or 0.0
            return line if wait < _LEAST_WAIT_S else f"{line}, waited {short_span(wait)}"
        why = waits_for(row, await self._client.repository.list_open_lifecycles())
        if not why and time.monotonic() - self._begun > _PATIENCE_S:
            why = "no worker takes it, is one running? See decnet-reaper doctor"
        return f"{line}, {why}" if why else line

    def _many(self, rows: Sequence[Lifecycle], ended: dict[str, Lifecycle]) -> str:
        pending = sum(row["status"] == "pending" for row in rows)
        failed = sum(row["status"] == "failed" for row in ended.values())
        return f"{len(self._running)} running, {pending} pending" + (f", {failed} failed" if failed else "")


def waits_for(row: Lifecycle, open_rows: Iterable[Lifecycle]) -> str:
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


def in_short(line: str, decky_name: str) -> str:
    """What a runtime printed, fit for a terminal; Compose's containers by the names of their services.

    Args:
        line: `Container decky-01-decky-01-ssh-1  Waiting` becomes `decky-01-ssh Waiting`.
        decky_name: whose project it is.
    """
    return re.sub(rf"^Container {re.escape(decky_name)}-(\S+)-\d+ ", r"\1 ", printable(line))


class _State(ProgressColumn):
    """The state, and dimmed what is being done; what has no room is cut."""

    def get_table_column(self) -> Column:
        return Column(ratio=1, no_wrap=True, overflow="ellipsis")

    def render(self, task: Task) -> Text:
        doing = task.fields["doing"]
        return Text.assemble(task.description, (f"  {doing}" if doing else "", "dim"))


@contextlib.asynccontextmanager
async def progress_line(client: LifecycleClient, total: int) -> AsyncIterator[ProgressLine]:
    """Show the line on standard error as long as this lasts; then it is gone."""
    console = Console(stderr=True)
    bar: list[ProgressColumn] = [MofNCompleteColumn()] if total > 1 else []
    if total > 1 and console.width >= _WIDTH_FOR_BAR:
        bar.insert(0, BarColumn(bar_width=20))
    columns = [SpinnerColumn("line"), *bar, TimeElapsedColumn(), _State()]
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        shown = ProgressLine(client, progress, progress.add_task("accepted", total=total, doing=""), total)
        looking = asyncio.create_task(shown.look())
        try:
            yield shown
        finally:
            looking.cancel()
            await asyncio.wait([looking])
