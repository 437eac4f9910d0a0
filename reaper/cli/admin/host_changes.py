"""What `decnet-reaper hosts` changes: hosts are added, removed and given up."""

import json

import click

from reaper.cli.output.table import say_empty, to_json
from reaper.settings import ReaperSettings
from repo.factory import server_of
from repo.postgres.hosts import lose_host
from repo.postgres.roles import adding_host, remove_host
from repo.postgres.server import Server
from worker.queue.users import add_user, remove_user


async def add(settings: ReaperSettings, server: Server, uuid: str, *, as_json: bool) -> int:
    """Make a role and a queue user for the host, and print the settings that go onto it."""
    async with adding_host(server, uuid) as role:
        user = await add_user(settings.redis, uuid)
    given = {"host_uuid": uuid, "database": server.url_of(role.role), "database_password": role.password}
    if settings.presence_database:
        given["presence_database"] = server_of(settings, settings.presence_database).url_of(role.role)
    given["redis"] = user.dsn
    if as_json:
        click.echo(to_json(given))
        return 0
    click.echo(
        f"# For {uuid}, and for nobody else to read: into its /etc/decnet-reaper/config.toml, mode 0640."
    )
    for name, value in given.items():
        click.echo(f"{name} = {json.dumps(value)}")
    if not user.kept:
        click.echo(
            "decnet-reaper: Redis keeps its users in no file: they are gone when it restarts", err=True
        )
    return 0


async def remove(settings: ReaperSettings, server: Server, uuid: str, *, as_json: bool) -> int:
    """Take the host's role and queue user away, and forget it."""
    was_known = await remove_host(server, uuid)
    had_user = await remove_user(settings.redis, uuid)
    if as_json:
        click.echo(to_json({"host_uuid": uuid, "known": was_known, "queue_user": had_user}))
    elif was_known or had_user:
        click.echo(f"{uuid}: removed; its running rows are closed as lost by a reaper's next sweep")
    else:
        say_empty(f"{uuid} is not known, and has no queue user")
    return 0


async def lose(settings: ReaperSettings, server: Server, uuid: str, *, as_json: bool) -> int:
    """Say of a host that is not there that it is lost."""
    await lose_host(server, uuid)
    if as_json:
        click.echo(to_json({"host_uuid": uuid, "state": "lost"}))
    else:
        click.echo(f"{uuid}: lost; its running rows are closed by a reaper's next sweep")
    return 0
