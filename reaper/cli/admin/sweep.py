"""`decnet-reaper sweep`: one sweep, from the command line or from a unit's ExecStopPost."""

import asyncio
import json
from contextlib import aclosing

import click

from reaper.cli.logging import settings_of_daemon
from reaper.cli.options import Duration, dry_run_option, json_option
from reaper.settings import ReaperSettings, SettingsError
from reaper.sweep.hosts import Hosts
from reaper.sweep.report import Report, Scope
from reaper.sweep.rules import Do
from reaper.sweep.sweeper import Sweeper
from repo.factory import repository_of
from worker.liveness.locks import DeckyLocks
from worker.logging.console import printable
from worker.queue import Queue
from worker.service.systemd import death_reason, invocation_id


@click.command()
@click.option(
    "--older-than",
    type=Duration(),
    metavar="DURATION",
    help="Also give up rows that nobody started for so long (1h).",
)
@click.option("--after-stop", is_flag=True, help="For ExecStopPost=: only rows of the unit's run that ended.")
@dry_run_option
@json_option
def command(older_than: float | None, after_stop: bool, dry_run: bool, as_json: bool) -> int:
    """Make one sweep now, without Redis.

    Closes orphans and stale rows.

    \b
    Examples:
      decnet-reaper sweep --dry-run
      decnet-reaper sweep --older-than 10m
    """
    ended_run = _ended_run() if after_stop else None
    settings = settings_of_daemon()
    return asyncio.run(run_sweep(settings, older_than, ended_run=ended_run, dry_run=dry_run, as_json=as_json))


def _ended_run() -> str:
    if (ended_run := invocation_id()) is None:
        raise SettingsError("--after-stop is for a unit's ExecStopPost=, and systemd does not run this")
    return ended_run


async def run_sweep(
    settings: ReaperSettings, older_than: float | None, *, ended_run: str | None, dry_run: bool, as_json: bool
) -> int:
    """Make one sweep, limited as `Scope` explains, and print what it decided; the exit status."""
    died_of = death_reason() if ended_run else ""
    queue = Queue(settings.redis)
    async with repository_of(settings) as repository, aclosing(Hosts(settings)) as hosts:
        sweeper = Sweeper(repository, queue, DeckyLocks.of(settings), settings, hosts=hosts)
        report = await sweeper.run("command", Scope(False, older_than, ended_run, died_of, dry_run))
        await queue.close()
    _print(report, dry_run=dry_run, as_json=as_json)
    return 0


def _print(report: Report, *, dry_run: bool, as_json: bool) -> None:
    decided = [
        {"id": row["id"], "decky_name": row["decky_name"], "action": action.do.value, "error": action.error}
        for row, action in report.actions
    ]
    if as_json:
        click.echo(json.dumps({"rows": report.rows, "dry_run": dry_run, "actions": decided}, indent=2))
        return
    for entry in decided:
        click.echo(printable(f"{entry['id']} {entry['decky_name']}: {entry['action']} {entry['error']}"))
    closed = sum(action.do is Do.FAIL for _, action in report.actions)
    click.echo(f"{report.rows} open rows seen, {closed} {'would be closed' if dry_run else 'closed'}")
