"""`decnet-reaper deckies`: what each decky runs now, and what is asked of it."""

from collections.abc import Sequence
from typing import NamedTuple

import click

from reaper.cli.options import json_option
from reaper.cli.output.away import hosts_away
from reaper.cli.output.table import Column, print_table, say_empty, to_json
from reaper.cli.selection import decky_option
from reaper.cli.session import with_repository
from repo.base import ANY_HOST, BaseRepository, DeployedDecky, Lifecycle
from worker.clock import seconds_since, short_span
from worker.logging.console import printable, tail


class Decky(NamedTuple):
    """One decky on one host.

    Attributes:
        name, host_uuid: which.
        deployed: what it runs; None where nothing is deployed.
        open: its open rows, oldest first.
        host_away: that its host is not there, in words; None where it is, or isn't known.
    """

    name: str
    host_uuid: str | None
    deployed: DeployedDecky | None
    open: list[Lifecycle]
    host_away: str | None


@click.command()
@decky_option()
@click.option("--host", metavar="UUID", help="Only deckies of this host.")
@json_option
def command(decky: str | None, host: str | None, as_json: bool) -> int:
    """Show what each decky runs now.

    Its services, since when, the row that brought it there, and what is pending or running on it.

    \b
    Examples:
      decnet-reaper deckies
      decnet-reaper deckies --decky decky-01 --json
      decnet-reaper deckies --json | jq -r '.[] | select(.services | index("decky-01-ssh")) | .decky_name'
    """

    async def work(repository: BaseRepository) -> int:
        found = await _deckies(repository, decky, host)
        if as_json:
            click.echo(to_json([_public(each) for each in found]))
        elif found:
            print_table(_columns(found))
        else:
            say_empty("no decky is like that" if decky or host else "no decky is deployed yet")
        return 0

    return with_repository(work)


async def _deckies(repository: BaseRepository, name: str | None, host: str | None) -> list[Decky]:
    where = ANY_HOST if host is None else host
    deployed = await repository.list_deployed(host_uuid=where, decky_name=name)
    rows = [row for row in await repository.list_open_lifecycles(where) if name in (None, row["decky_name"])]
    running = {(each["decky_name"], each["host_uuid"]): each for each in deployed}
    opened: dict[tuple[str, str | None], list[Lifecycle]] = {}
    for row in rows:
        opened.setdefault((row["decky_name"], row["host_uuid"]), []).append(row)
    keys = sorted(running.keys() | opened.keys(), key=lambda key: (key[0], key[1] or ""))
    away = await hosts_away(repository)
    return [Decky(*key, running.get(key), opened.get(key, []), away.get(key[1])) for key in keys]


def _public(decky: Decky) -> dict[str, object]:
    return {
        "decky_name": decky.name,
        "host_uuid": decky.host_uuid,
        "host_away": decky.host_away,
        "services": decky.deployed["services"] if decky.deployed else [],
        "deployed_at": decky.deployed["deployed_at"] if decky.deployed else None,
        "lifecycle_id": decky.deployed["lifecycle_id"] if decky.deployed else None,
        "open": [
            {"id": row["id"], "operation": row["operation"], "status": row["status"]} for row in decky.open
        ],
    }


def _columns(deckies: Sequence[Decky]) -> list[Column]:
    hosts = [
        printable(decky.host_uuid or "-") + (f" ({decky.host_away})" if decky.host_away else "")
        for decky in deckies
    ]
    deployed = [decky.deployed for decky in deckies]
    since = [_since(each) for each in deployed]
    return [
        Column("decky", [printable(decky.name) for decky in deckies], may_cut=True),
        *(
            [Column("host", hosts, may_cut=True)]
            if any(decky.host_uuid or decky.host_away for decky in deckies)
            else []
        ),
        Column("services", [_services(decky) for decky in deckies], may_cut=True),
        Column("since", since, number=True, may_drop=2),
        Column(
            "by", [tail(printable(each["lifecycle_id"])) if each else "-" for each in deployed], may_drop=1
        ),
        Column("open operation", [_open(decky) for decky in deckies]),
    ]


def _since(deployed: DeployedDecky | None) -> str:
    return short_span(seconds_since(deployed["deployed_at"])) if deployed else "-"


def _services(decky: Decky) -> str:
    """Without the decky's name, as `mutate --services` takes them; the base alone is "(base)"."""
    if decky.deployed is None:
        return "-"
    prefix = f"{decky.name}-"
    names = [name.removeprefix(prefix) for name in decky.deployed["services"] if name != decky.name]
    return printable(",".join(names)) or "(base only)"


def _open(decky: Decky) -> str:
    if not decky.open:
        return "-"
    first, *more = decky.open
    return f"{first['operation']} {first['status']}" + (f" and {len(more)} more" if more else "")
