"""`decnet-reaper cancel`."""

import asyncio

import click

from reaper.cli import exit_status
from reaper.cli.operations.session import with_client
from reaper.cli.options import json_option
from reaper.cli.output.table import public, say_empty, show_rows, to_json
from reaper.cli.selection import decky_option, ids_argument, whole_ids
from repo.base import ANY_HOST
from repo.errors import LifecycleClosed, LifecycleNotFound
from worker.client import LifecycleClient


@click.command()
@ids_argument(required=False)
@decky_option("All that is open on this decky.")
@click.option("--open", "all_open", is_flag=True, help="All that is open, on every decky.")
@json_option
def command(ids: tuple[str, ...], decky: str | None, all_open: bool, as_json: bool) -> int:
    """Cancel what is pending or running.

    A pending row is closed, a running operation is ended; both fail, "cancelled by operator". Each of
    several ids is tried; the exit status is 2 if one was unknown or had ended before.

    \b
    Examples:
      decnet-reaper cancel 019a1f0e-5d1c-7c3e-8a54-3d0f6b6c9d21
      decnet-reaper cancel --decky decky-01
      decnet-reaper list --open --since 10m --json | jq -r '.[].id' | xargs decnet-reaper cancel
    """
    if sum((bool(ids), decky is not None, all_open)) != 1:
        raise click.UsageError("a cancel takes either ids, or --decky NAME, or --open")

    async def work(client: LifecycleClient) -> int:
        if ids:
            wanted = [*dict.fromkeys(await whole_ids(client.repository, ids))]
        else:
            opened = await client.repository.list_open_lifecycles(ANY_HOST)
            # The newest first: a pending one would be started as the one before it ends.
            wanted = [row["id"] for row in reversed(opened) if decky in (None, row["decky_name"])]
        if not wanted and not as_json:
            say_empty(f"nothing is pending or running{f' on {decky}' if decky else ''}")
            return 0
        results = await asyncio.gather(*map(client.cancel, wanted), return_exceptions=True)
        rows = [result for result in results if isinstance(result, dict)]
        if as_json and len(ids) == 1:
            for row in rows:
                click.echo(to_json(public(row)))
        elif rows or as_json:
            show_rows(rows, as_json=as_json)
        worst = 0
        for lifecycle_id, result in zip(wanted, results, strict=True):
            if isinstance(result, BaseException):
                worst = max(worst, await _report(client, lifecycle_id, result))
        return worst

    return with_client(work)


async def _report(client: LifecycleClient, lifecycle_id: str, error: BaseException) -> int:
    if isinstance(error, TimeoutError):
        reason = f"{lifecycle_id} was asked to end and has not yet: decnet-reaper status {lifecycle_id}"
        return exit_status.report(reason, exit_status.UNAVAILABLE)
    if isinstance(error, LifecycleNotFound):
        reason = f"there is no lifecycle {lifecycle_id}; decnet-reaper list --open shows what can be ended"
        return exit_status.report(reason, exit_status.BAD_INPUT)
    if isinstance(error, LifecycleClosed):
        row = await client.get(lifecycle_id)
        reason = (
            f"{lifecycle_id} has ended already: the {row['operation']} of {row['decky_name']} {row['status']}"
        )
        return exit_status.report(reason, exit_status.BAD_INPUT)
    return exit_status.report_error(error)
