"""The command line. Commands are thin: what they need is imported when they run, so that --help is quick.

Exit status: 0 done, 1 the operation failed, 2 bad usage or input, 3 store, queue or runtime unavailable.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reaper import exit_status
from reaper.logs import logs

if TYPE_CHECKING:
    from reaper.settings import ReaperSettings
    from worker.client import LifecycleClient

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
wait_option = click.option("--wait", is_flag=True, help="Wait for the end; exit with 1 if it failed.")
host_option = click.option("--host", metavar="UUID", help="The host that the decky lives on.")
compose_option = click.option("--compose", metavar="FILE", help="A Compose document; - for standard input.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="decnet-reaper")
def cli() -> None:
    """Deploys and mutates deckies, and keeps every row of decky_lifecycle true, whatever is killed.

    \b
    Begin with:
      decnet-reaper up                                         in one terminal
      decnet-reaper deploy decky-01 --compose FILE --wait      in another
    """


def main() -> None:
    """Run the command line; every foreseeable error is one line on stderr and an exit status."""
    try:
        cli(standalone_mode=True)
    except Exception as error:
        status = exit_status.of(error)
        if status is None:
            raise
        from worker.log import told_as_line

        reason = " ".join(str(error).split())
        if not told_as_line(reason, status):
            click.echo(f"decnet-reaper: {reason}", err=True)
        sys.exit(status)


def _settings(*, quiet: bool) -> "ReaperSettings":
    from reaper.settings import ReaperSettings, load
    from worker.log import configure, configure_command

    settings = load(ReaperSettings, strict=True)
    (configure_command if quiet else configure)(settings)
    return settings


def _with_client(work: "Callable[[LifecycleClient], Coroutine[Any, Any, int]]") -> None:
    from worker.client import LifecycleClient

    async def run() -> int:
        async with LifecycleClient(_settings(quiet=True)) as client:
            return await work(client)

    sys.exit(asyncio.run(run()))


def _read(compose: str) -> str:
    from worker.document import MAX_BYTES, InvalidDocument

    try:
        with click.open_file(compose, "rb") as stream:
            text: bytes = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidDocument(f"{compose} can't be read: {error.strerror}") from None
    if len(text) > MAX_BYTES:
        raise InvalidDocument(f"{compose} is larger than {MAX_BYTES} bytes")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidDocument(f"{compose} is not UTF-8 text") from None


@cli.command()
def worker() -> None:
    """Run one worker."""
    from worker.daemon import run_worker

    asyncio.run(run_worker(_settings(quiet=False)))


@cli.command()
def reaper() -> None:
    """Run one reaper."""
    from reaper.daemon import run_reaper

    asyncio.run(run_reaper(_settings(quiet=False)))


@cli.command()
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="How many workers.")
def up(workers: int) -> None:
    """Run all of it in this terminal: store, queue, workers and reaper."""
    from reaper.up import run_up

    sys.exit(asyncio.run(run_up(_settings(quiet=False), workers)))


@cli.command()
@click.option("--keep", is_flag=True, help="Keep the demonstration's files, and say where.")
def demo(keep: bool) -> None:
    """Show it at work: deploys, a mutate, a failure, and a worker killed in the middle."""
    from reaper.demo import run_demo

    sys.exit(asyncio.run(run_demo(_settings(quiet=True), keep=keep)))


@cli.command()
@click.argument("name")
@compose_option
@host_option
@wait_option
@json_option
def deploy(name: str, compose: str | None, host: str | None, wait: bool, as_json: bool) -> None:
    """Bring decky NAME up from a Compose document."""
    if compose is None:
        raise click.UsageError("a deploy needs --compose FILE")
    text = _read(compose)

    async def work(client: "LifecycleClient") -> int:
        from reaper.show import follow

        lifecycle_id = await client.deploy(name, text, host_uuid=host)
        return await follow(client, lifecycle_id, wait=wait, as_json=as_json)

    _with_client(work)


@cli.command()
@click.argument("name")
@click.option("--services", metavar="A,B", help="The services to expose; the base is always kept.")
@compose_option
@host_option
@wait_option
@json_option
def mutate(
    name: str, services: str | None, compose: str | None, host: str | None, wait: bool, as_json: bool
) -> None:
    """Change the services that decky NAME exposes."""
    if (services is None) == (compose is None):
        raise click.UsageError("a mutate takes either --services A,B or --compose FILE")
    chosen = None if services is None else [part.strip() for part in services.split(",") if part.strip()]
    text = None if compose is None else _read(compose)

    async def work(client: "LifecycleClient") -> int:
        from reaper.show import follow

        lifecycle_id = await client.mutate(name, services=chosen, compose=text, host_uuid=host)
        return await follow(client, lifecycle_id, wait=wait, as_json=as_json)

    _with_client(work)


@cli.command()
@click.argument("ids", nargs=-1, required=True)
@json_option
def cancel(ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel: a pending row is closed, a running operation is ended."""

    async def work(client: "LifecycleClient") -> int:
        from reaper.show import show_rows

        show_rows([await client.cancel(lifecycle_id) for lifecycle_id in ids], as_json=as_json)
        return 0

    _with_client(work)


@cli.command()
@click.argument("ids", nargs=-1, required=True)
@json_option
def status(ids: tuple[str, ...], as_json: bool) -> None:
    """Show rows by id; exits with 2 if one is unknown."""

    async def work(client: "LifecycleClient") -> int:
        from reaper.show import show_rows

        rows = await client.repository.get_lifecycle_by_ids(ids)
        show_rows(rows, as_json=as_json)
        unknown = sorted(set(ids) - {row["id"] for row in rows})
        if unknown:
            click.echo(f"decnet-reaper: there is no lifecycle {', '.join(unknown)}", err=True)
        return exit_status.BAD_INPUT if unknown else 0

    _with_client(work)


@cli.command(name="list")
@click.option("--open", "only_open", is_flag=True, help="Only pending and running rows.")
@click.option("--decky", metavar="NAME", help="Only this decky's.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@json_option
def list_(only_open: bool, decky: str | None, limit: int, as_json: bool) -> None:
    """List rows, newest first."""

    async def work(client: "LifecycleClient") -> int:
        from reaper.show import show_rows
        from repo.base import OPEN

        statuses = OPEN if only_open else ()
        rows = await client.repository.list_lifecycles(statuses=statuses, decky_name=decky, limit=limit)
        show_rows(rows, as_json=as_json)
        return 0

    _with_client(work)


@cli.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
def watch(limit: int) -> None:
    """A live table of the newest rows; end it with Ctrl-C."""

    async def work(client: "LifecycleClient") -> int:
        from reaper.show import watch_rows

        await watch_rows(client, limit)
        return 0

    _with_client(work)


@cli.command()
@click.option(
    "--older-than", metavar="DURATION", help="Also give up rows that nobody started for so long (1h)."
)
@click.option("--owner-pid", type=int, help="Only rows of the worker with this process id.")
@click.option("--because", default="", metavar="TEXT", help="What ended that worker, such as oom-kill.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@json_option
def sweep(older_than: str | None, owner_pid: int | None, because: str, dry_run: bool, as_json: bool) -> None:
    """Make one reap pass now: close orphans and stale rows. Needs no Redis."""
    from reaper.command_sweep import run_sweep

    settings = _settings(quiet=False)
    sys.exit(
        asyncio.run(run_sweep(settings, older_than, owner_pid, because, dry_run=dry_run, as_json=as_json))
    )


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check each prerequisite, and say what to do about it."""
    from reaper.doctor import run_doctor

    sys.exit(asyncio.run(run_doctor(_settings(quiet=True), as_json=as_json)))


@cli.command()
@click.option("--prefix", type=click.Path(path_type=Path), default=Path("/"), show_default=True)
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
def install(prefix: Path, dry_run: bool) -> None:
    """Install the systemd units, the user and the directories."""
    from reaper.install import install as run

    click.echo("\n".join(run(prefix, dry_run=dry_run)))


@cli.command()
@click.option("--prefix", type=click.Path(path_type=Path), default=Path("/"), show_default=True)
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
def uninstall(prefix: Path, dry_run: bool) -> None:
    """Remove what `install` installed; data and configuration stay."""
    from reaper.install import uninstall as run

    click.echo("\n".join(run(prefix, dry_run=dry_run)))


cli.add_command(logs)

if __name__ == "__main__":
    main()
