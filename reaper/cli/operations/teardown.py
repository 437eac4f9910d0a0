"""`decnet-reaper teardown`."""

import click

from reaper.cli.operations.session import submit, with_client
from reaper.cli.options import Wait, host_option, json_option, wait_options
from reaper.cli.output.wait import warn_of_host
from reaper.cli.selection import names_argument
from worker.client import LifecycleClient


@click.command()
@names_argument()
@host_option
@wait_options
@json_option
def command(names: tuple[str, ...], host: str | None, wait: Wait, as_json: bool) -> int:
    """Take deckies down.

    Everything that runs for them ends, and nothing is deployed on them any more: a mutate needs a new deploy
    first. Rows, documents in rows and logs stay.

    \b
    Examples:
      decnet-reaper teardown decky-01 --wait
      decnet-reaper teardown decky-01 decky-02
      decnet-reaper deckies --json | jq -r '.[].decky_name' | xargs decnet-reaper teardown
    """

    async def work(client: LifecycleClient) -> int:
        teardowns = [client.teardown(name, host_uuid=host) for name in dict.fromkeys(names)]
        warn_of_host(client.settings, host)
        return await submit(client, teardowns, wait=wait, as_json=as_json, several=len(names) > 1)

    return with_client(work)
