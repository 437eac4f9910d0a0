"""`decnet-reaper hosts`: which hosts are there, and who they are."""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import click

from reaper.cli.options import json_option
from reaper.cli.output.away import state_of
from reaper.cli.output.table import Column, print_table, say_empty, to_json
from reaper.cli.session import load_settings
from reaper.settings import ReaperSettings
from repo.base import ID, Host, Lifecycle
from repo.factory import repository_of, server_of
from worker.clock import seconds_since, short_span
from worker.logging.console import printable

_PROGRAM = "decnet-reaper "


@click.command()
@click.argument("action", type=click.Choice(["add", "remove", "lost"]), required=False)
@click.argument("uuid", required=False)
@json_option
def command(action: str | None, uuid: str | None, as_json: bool) -> int:
    """Show the hosts; add, remove or give up one.

    A host is present while one of its daemons has its session in the database, which has to be PostgreSQL.
    It is lost once none has for `host_lost_after`; then its running rows are closed as lost, and its pending
    rows and the retries wait for it.

    `add` makes a database role and a queue user that can touch this host's rows and jobs alone, and prints,
    once, the settings that go onto the host; it needs an administrator of both. `remove` takes both away,
    ends the sessions that they have, and forgets the host once its last open row has ended. `lost` says of a
    host that is not there that it is lost, at once.

    \b
    Examples:
      decnet-reaper hosts
      decnet-reaper hosts add h2 > h2.toml
      decnet-reaper hosts --json | jq -r '.[] | select(.present | not) | .host_uuid'
    """
    settings = load_settings()
    if action is None:
        return asyncio.run(_show(settings, as_json=as_json))
    if uuid is None or not ID.fullmatch(uuid):
        raise click.UsageError(f"hosts {action} wants the host's UUID, as its setting host_uuid has it")
    server = server_of(settings)  # or it is said why there is none
    from reaper.cli.admin import host_changes  # here, since it needs psycopg, which is an extra

    change = {"add": host_changes.add, "remove": host_changes.remove, "lost": host_changes.lose}[action]
    return asyncio.run(change(settings, server, uuid, as_json=as_json))


class _Shown(NamedTuple):
    host: Host
    rows: list[Lifecycle]

    @property
    def running(self) -> int:
        return sum(row["status"] == "running" for row in self.rows)

    @property
    def oldest_s(self) -> float | None:
        accepted = [seconds_since(row["started_at"]) for row in self.rows]
        return max(accepted, default=None)


async def _show(settings: ReaperSettings, *, as_json: bool) -> int:
    server_of(settings)  # a file is the store of one host
    async with repository_of(settings) as repository:
        hosts = {host["host_uuid"]: host for host in await repository.list_hosts()}
        rows: dict[str | None, list[Lifecycle]] = {uuid: [] for uuid in hosts}
        for row in await repository.list_open_lifecycles():
            rows.setdefault(row["host_uuid"], []).append(row)
    found = [_Shown(hosts.get(uuid) or _never_seen(uuid), rows[uuid]) for uuid in rows]
    found.sort(key=lambda each: each.host["host_uuid"] or "")
    if as_json:
        click.echo(to_json([_public(each) for each in found]))
    elif found:
        print_table(_columns(found))
    else:
        say_empty("no daemon of any host was ever there, or this role may not ask")
    return 0


def _never_seen(uuid: str | None) -> Host:
    return Host(
        host_uuid=uuid,
        present=False,
        daemons=[],
        has_role=False,
        seen_at=None,
        absent_since=None,
        lost_at=None,
    )


def _public(each: _Shown) -> dict[str, Any]:
    return {
        **each.host,
        "state": state_of(each.host),
        "running": each.running,
        "pending": len(each.rows) - each.running,
        "oldest_s": each.oldest_s,
    }


def _columns(found: list[_Shown]) -> list[Column]:
    hosts = [each.host for each in found]
    return [
        Column("host", [printable(host["host_uuid"] or "(the master's)") for host in hosts], may_cut=True),
        Column("state", [state_of(host) for host in hosts]),
        Column("since", [_since(host) for host in hosts], number=True),
        Column("daemons", [_daemons(host["daemons"]) for host in hosts], may_cut=True),
        Column("running", [str(each.running) for each in found], number=True),
        Column("pending", [str(len(each.rows) - each.running) for each in found], number=True),
        Column("oldest", [short_span(each.oldest_s) for each in found], number=True, may_drop=1),
    ]


def _since(host: Host) -> str:
    since = host["seen_at"] if host["present"] else host["lost_at"] or host["absent_since"]
    return "-" if since is None else short_span(seconds_since(since))


def _daemons(names: Iterable[str]) -> str:
    """Without the program's name; a session's own name may be hidden from who is no superuser."""
    shown = [printable(name).removeprefix(_PROGRAM) or "?" for name in names]
    return ", ".join(shown) or "-"
