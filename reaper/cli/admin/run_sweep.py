"""One reap pass from the command line or from a unit's ExecStopPost."""

import json

import click

from reaper.settings import ReaperSettings
from reaper.sweep.sweeper import Sweeper
from repo.factory import get_repository
from worker.liveness.locks import DeckyLocks
from worker.queue import Queue
from worker.systemd import death_reason


async def run_sweep(
    settings: ReaperSettings,
    older_than: float | None,
    *,
    ended_run: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Make one pass and print what it decided.

    Args:
        settings: limits.
        older_than: also give up rows that nobody started for so many seconds.
        ended_run: only rows of this run of a unit, which has just ended, with what systemd says of its end.
        dry_run: decide, but do nothing.
        as_json: print JSON.

    Returns:
        The exit status, 0.
    """
    queue = Queue(settings.redis)
    async with get_repository(url=settings.database) as repository:
        sweeper = Sweeper(repository, queue, DeckyLocks(settings.runtime_dir), settings)
        report = await sweeper.run(
            "command",
            with_queue=False,
            older_than=older_than,
            run=ended_run,
            died_of=death_reason() if ended_run else "",
            dry_run=dry_run,
        )
        await queue.close()
    decided = [
        {"id": row["id"], "decky_name": row["decky_name"], "action": action.do.value, "error": action.error}
        for row, action in report.actions
    ]
    if as_json:
        click.echo(json.dumps({"rows": report.rows, "dry_run": dry_run, "actions": decided}, indent=2))
    else:
        for entry in decided:
            click.echo(f"{entry['id']} {entry['decky_name']}: {entry['action']} {entry['error']}".rstrip())
        verb = "would be closed" if dry_run else "closed"
        closed = sum(1 for _, action in report.actions if action.error)
        click.echo(f"{report.rows} open rows seen, {closed} {verb}")
    return 0
