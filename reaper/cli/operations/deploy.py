"""`decnet-reaper deploy`."""

from pathlib import Path

import click

from reaper.cli import exit_status
from reaper.cli.operations.document_files import of_directory, of_file
from reaper.cli.operations.session import submit, with_client
from reaper.cli.options import Wait, compose_option, host_option, json_option, wait_options
from reaper.cli.output.wait import warn_of_host
from reaper.cli.selection import names_argument
from worker.client import LifecycleClient


@click.command()
@names_argument(required=False)
@compose_option
@click.option(
    "--fleet",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Deploy each *.yaml, *.yml and *.json of DIR; a file is named like its decky.",
)
@host_option
@wait_options
@json_option
def command(
    names: tuple[str, ...],
    compose: str | None,
    fleet: Path | None,
    host: str | None,
    wait: Wait,
    as_json: bool,
) -> int:
    """Bring deckies up from a Compose document.

    Prints the id of each attempt, or with --wait how it ended. Everything is checked before anything is
    submitted. Asking for what a decky is being deployed with already gives that attempt's id.

    \b
    Examples:
      decnet-reaper deploy decky-01 --compose decky-01.yaml --wait
      generate | decnet-reaper deploy decky-01 --compose -
      decnet-reaper deploy decky-01 decky-02 --compose both.yaml
      decnet-reaper deploy --fleet fleet/ --wait
    """
    if fleet is not None and (names or compose is not None):
        raise click.UsageError("--fleet DIR takes neither a NAME nor --compose")
    if fleet is None and (not names or compose is None):
        raise click.UsageError("a deploy needs a NAME and --compose FILE, or --fleet DIR")

    async def work(client: LifecycleClient) -> int:
        try:
            asked = of_directory(fleet) if fleet is not None else of_file(names, compose or "")
        except ExceptionGroup as error:
            for reason in (*error.exceptions, error.message):
                exit_status.report(str(reason), exit_status.BAD_INPUT)
            return exit_status.BAD_INPUT
        deploys = [client.deploy(name, document, host_uuid=host) for name, document in asked]
        warn_of_host(client.settings, host)
        several = fleet is not None or len(names) > 1
        return await submit(client, deploys, wait=wait, as_json=as_json, several=several)

    return with_client(work)
