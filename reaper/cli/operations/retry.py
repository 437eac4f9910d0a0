"""`decnet-reaper retry`."""

import click

from reaper.cli.operations.session import submit, with_client
from reaper.cli.options import Wait, json_option, wait_options
from reaper.cli.selection import ids_argument, whole_ids
from worker.client import LifecycleClient


@click.command()
@ids_argument()
@wait_options
@json_option
def command(ids: tuple[str, ...], wait: Wait, as_json: bool) -> int:
    """Ask for the same again.

    The request of a row that has ended becomes a new row, which names the old one. Prints the new ids. The
    last eight characters of an id will do.

    \b
    Examples:
      decnet-reaper retry 6b6c9d21 --wait
      decnet-reaper list --state failed --since 1h --json | jq -r '.[].id' | xargs decnet-reaper retry
    """

    async def work(client: LifecycleClient) -> int:
        wanted = dict.fromkeys(await whole_ids(client.repository, ids))
        retries = map(client.retry, wanted)
        return await submit(client, retries, wait=wait, as_json=as_json, several=len(ids) > 1)

    return with_client(work)
