"""`decnet-reaper mutate`."""

import click

from reaper.cli.operations import document_files
from reaper.cli.operations.session import submit, with_client
from reaper.cli.options import Wait, compose_option, host_option, json_option, wait_options
from reaper.cli.output.wait import warn_of_host
from reaper.cli.selection import names_argument
from worker.client import LifecycleClient


@click.command()
@names_argument()
@click.option("--services", metavar="A,B", help="The services to expose; the base is always kept.")
@compose_option
@host_option
@wait_options
@json_option
def command(
    names: tuple[str, ...],
    services: str | None,
    compose: str | None,
    host: str | None,
    wait: Wait,
    as_json: bool,
) -> int:
    """Change the services that deckies expose.

    It is one change: if it fails, the previous services come back. --services picks among those of the
    last deployed document, by full name or without the decky's.

    \b
    Examples:
      decnet-reaper mutate decky-01 --services ssh,http --wait
      decnet-reaper mutate decky-01 decky-02 --services ssh
      decnet-reaper mutate decky-01 --compose changed.yaml
    """
    if (services is None) == (compose is None):
        raise click.UsageError("a mutate takes either --services A,B or --compose FILE")
    chosen = None if services is None else [part.strip() for part in services.split(",") if part.strip()]
    if chosen == []:
        raise click.UsageError(
            "--services names no service; for the base alone name that, as in the document"
        )

    async def work(client: LifecycleClient) -> int:
        documents = {} if compose is None else dict(document_files.of_file(names, compose))
        mutates = [
            client.mutate(name, services=chosen, compose=documents.get(name), host_uuid=host)
            for name in dict.fromkeys(names)
        ]
        warn_of_host(client.settings, host)
        return await submit(client, mutates, wait=wait, as_json=as_json, several=len(names) > 1)

    return with_client(work)
