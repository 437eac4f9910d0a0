"""`decnet-reaper cancel`."""

import asyncio

import click

from reaper.cli import exit_status
from reaper.cli.operations.session import with_client
from reaper.cli.options import json_option
from reaper.cli.output.table import show_rows
from reaper.cli.selection import ids_argument, whole_ids
from repo.errors import LifecycleNotFound
from worker.client import LifecycleClient


@click.command()
@ids_argument
@json_option
def command(ids: tuple[str, ...], as_json: bool) -> int:
    """Cancel what is pending or running.

    A pending row is closed, a running operation is ended; both fail, "cancelled by operator". Each of
    several ids is tried; the exit status is 2 if one was unknown or had ended before.

    \b
    Examples:
      decnet-reaper cancel 019a1f0e-5d1c-7c3e-8a54-3d0f6b6c9d21
      decnet-reaper list --open --decky decky-01 --json | jq -r '.[].id' | xargs decnet-reaper cancel
    """

    async def work(client: LifecycleClient) -> int:
        wanted = dict.fromkeys(await whole_ids(client.repository, ids))
        results = await asyncio.gather(*map(client.cancel, wanted), return_exceptions=True)
        rows = [result for result in results if isinstance(result, dict)]
        if rows or as_json:
            show_rows(rows, as_json=as_json)
        worst = 0
        for lifecycle_id, result in zip(wanted, results, strict=True):
            if isinstance(result, TimeoutError):
                reason = f"{lifecycle_id} has been asked to end and has not yet; look again with status"
                worst = max(worst, exit_status.report(reason, exit_status.UNAVAILABLE))
            elif isinstance(result, LifecycleNotFound):
                reason = (
                    f"there is no lifecycle {lifecycle_id}; decnet-reaper list --open shows what can be ended"
                )
                worst = max(worst, exit_status.report(reason, exit_status.BAD_INPUT))
            elif isinstance(result, BaseException):
                worst = max(worst, exit_status.report_error(result))
        return worst

    return with_client(work)
