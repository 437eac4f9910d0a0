"""`decnet-reaper demo`: the main job in half a minute, in a directory of its own; leaves nothing running."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from reaper.cli.logging import settings_of_command
from reaper.cli.output.table import show_rows
from reaper.settings import ReaperSettings, load
from repo.settings import PREFIX
from worker.client import LifecycleClient
from worker.clock import now
from worker.liveness.owner import Owner
from worker.queue import QueueUnavailable
from worker.queue.server import wait_ready
from worker.runtimes.base import Runtime, RuntimeUnavailable
from worker.runtimes.registry import AUTO, make_runtime

_PATIENCE_S = 60.0


@click.command()
@click.option("--keep", is_flag=True, help="Keep the demonstration's files, and say where.")
def command(keep: bool) -> int:
    """Show it all at work, in half a minute.

    Deploys, a mutate, a failure, and a worker killed in the middle. It works in a directory of its own
    and leaves nothing running.

    \b
    Examples:
      decnet-reaper demo
      DECNET_REAPER_RUNTIME=process decnet-reaper demo       without Docker
    """
    return asyncio.run(run_demo(settings_of_command(), keep=keep))


async def run_demo(settings: ReaperSettings, *, keep: bool) -> int:
    """Deploy three deckies, mutate one, let one fail, kill a worker in the middle of an operation.

    Only the runtime is taken from the settings; everything else happens in a temporary directory. Deckies and
    image have names of their own: Docker's engine has those of the fleet and of other demonstrations too.
    """
    number = secrets.token_hex(3)
    names = [f"demo-{number}-{place:02}" for place in range(1, 6)]
    image = f"decnet-reaper-demo:{number}"
    root = Path(tempfile.mkdtemp(prefix="decnet-demo-"))
    try:
        runtime = await _usable_runtime(settings, root, image)
        here = _written(settings, runtime, root)
    except BaseException:
        shutil.rmtree(root)
        raise
    up = _start(root)
    good = False
    try:
        await _wait_up(up, root)
        async with LifecycleClient(here) as client:
            good = await _story(client, names, image if runtime.name == "compose" else None)
            show_rows(await client.repository.list_lifecycles(), as_json=False)
    finally:
        up.send_signal(signal.SIGINT)
        await asyncio.to_thread(up.wait)
        for name in names:
            await runtime.remove(name)
        if runtime.name == "compose":
            _docker("image", "rm", "--force", image)
        if good and not keep:
            shutil.rmtree(root)
        else:
            click.echo(f"The log is {root}/log.")
    click.echo(
        "Everything was as it should be, and nothing is left running." if good else "Something went wrong."
    )
    return 0 if good else 1


async def _usable_runtime(settings: ReaperSettings, root: Path, image: str) -> Runtime:
    """What brings the deckies up: what was asked for, else local processes."""
    here, missing = msgspec.structs.replace(settings, state_dir=root / "state"), ""
    runtime = make_runtime(here)
    try:
        await runtime.check()
        if runtime.name == "compose" and not _make_image(image):
            missing = "Docker is here, but no busybox to make an image of"
    except RuntimeUnavailable as error:
        if settings.runtime != AUTO:
            raise
        missing = str(error)
    if missing:  # the demonstration's own deckies do no harm as processes
        runtime = make_runtime(msgspec.structs.replace(here, runtime="process"))
    means = "Docker Compose" if runtime.name == "compose" else "local processes"
    click.echo(f"Deckies run as {means}" + (f": {missing}" if missing else "."))
    return runtime


def _written(settings: ReaperSettings, runtime: Runtime, root: Path) -> ReaperSettings:
    """All settings of the demonstration, put into the configuration that `up` reads."""
    values = {
        "state_dir": str(root / "state"),
        "runtime_dir": str(root / "run"),
        "runtime": runtime.name,
        "runtime_command": settings.runtime_command,
        "compose_command": settings.compose_command,
        "max_attempts": 2,
    }
    config = _config(root)
    # Strings and lists of them are written as in JSON.
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items()]
    config.write_text("".join(lines))
    return load(ReaperSettings, {f"{PREFIX}CONFIG": str(config)})


def _config(root: Path) -> Path:
    return root / "config.toml"


async def _wait_up(up: subprocess.Popen[bytes], root: Path) -> None:
    ready = asyncio.create_task(wait_ready(root / "run" / "queue.sock", _PATIENCE_S))
    while not ready.done() and up.poll() is None:
        await asyncio.wait({ready}, timeout=0.1)
    if up.poll() is not None:
        ready.cancel()
        last = (root / "log").read_text().strip().rpartition("\n")[2]
        raise QueueUnavailable(f"decnet-reaper up ended: {last}")
    await ready


async def _story(client: LifecycleClient, names: list[str], image: str | None) -> bool:
    *three, broken, slow = names
    first = three[0]

    click.echo("\n1. Three deploys, accepted at once:")
    begun = time.monotonic()
    ids = [await client.deploy(name, _document(name, image)) for name in three]
    click.echo(f"   three ids after {(time.monotonic() - begun) * 1000:.0f} ms; now they are worked on")
    deployed = [await client.wait(lifecycle_id, timeout=_PATIENCE_S) for lifecycle_id in ids]

    click.echo(f"2. A mutate: {first} is to expose http alone.")
    mutated = await client.wait(await client.mutate(first, services=["http"]), timeout=_PATIENCE_S)

    click.echo("3. A deploy that fails on purpose: its service exits with status 3.")
    document = _document(broken, image, http=["sh", "-c", "echo the port is taken; exit 3"])
    failed = await client.wait(await client.deploy(broken, document), timeout=_PATIENCE_S)

    click.echo("4. A slow deploy, whose worker is killed in the middle:")
    lifecycle_id = await client.deploy(slow, _slow_document(slow, image, client.settings.state_dir))
    pid, killed_at = await _kill_worker(client, lifecycle_id)
    click.echo(f"   kill -9 {pid}")
    lost = await client.wait(lifecycle_id, timeout=_PATIENCE_S)
    took = (datetime.fromisoformat(lost["completed_at"] or lost["updated_at"]) - killed_at).total_seconds()
    click.echo(f"   the reaper closed its row after {took * 1000:.0f} ms: {lost['error']}")
    retried = await client.wait(await _retry_of(client, slow, lifecycle_id), timeout=_PATIENCE_S)
    click.echo(f"   and the retry that it accepted {retried['status']}\n")
    return (
        all(row["status"] == "succeeded" for row in (*deployed, mutated, retried))
        and (failed["status"], lost["status"]) == ("failed", "failed")
        and "taken" in (failed["error"] or "")
    )


async def _kill_worker(client: LifecycleClient, lifecycle_id: str) -> tuple[int, datetime]:
    while (row := await client.get(lifecycle_id))["status"] == "pending":
        await asyncio.sleep(0.02)
    await asyncio.sleep(1)
    owner = Owner.parse(row["owner"])
    if owner is None:
        raise RuntimeError(f"row {lifecycle_id} runs without an owner")
    owner.kill()
    return owner.pid, now()


async def _retry_of(client: LifecycleClient, decky_name: str, lifecycle_id: str) -> str:
    rows = await client.repository.list_lifecycles(decky_name=decky_name)
    return next(str(row["id"]) for row in rows if row["retry_of"] == lifecycle_id)


def _document(decky_name: str, image: str | None, http: list[str] | None = None) -> dict[str, Any]:
    """A decky as DECNET writes it: a base that owns the address, and services that share its network."""
    idle = ["sleep", "3600"]
    share = {"network_mode": f"service:{decky_name}", "depends_on": [decky_name]}
    services: dict[str, dict[str, Any]] = {
        decky_name: {"hostname": decky_name, "command": idle},
        f"{decky_name}-ssh": {"command": idle, **share},
        f"{decky_name}-http": {"command": http or idle, **share},
    }
    if image is not None:
        for service in services.values():
            service |= {"image": image, "init": True, "stop_grace_period": "1s"}
    return {"services": services}


def _slow_document(decky_name: str, image: str | None, state_dir: Path) -> dict[str, Any]:
    ready = str(state_dir / "ready") if image is None else "/ready"
    script = 'sleep 4; touch "$$0"; exec sleep 3600'
    document = _document(decky_name, image, http=["sh", "-c", script, ready])
    document["services"][f"{decky_name}-http"]["healthcheck"] = {
        "test": ["CMD", "test", "-e", ready],
        "interval": "500ms",
        "retries": 60,
    }
    return document


def _start(root: Path) -> subprocess.Popen[bytes]:
    ours = (PREFIX, "CREDENTIALS_DIRECTORY")
    environment = {key: text for key, text in os.environ.items() if not key.startswith(ours)}
    environment[f"{PREFIX}CONFIG"] = str(_config(root))
    command = [sys.executable, "-m", "reaper", "up", "--workers", "2"]
    with (root / "log").open("wb") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)


def _docker(*arguments: str) -> bool:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0


def _make_image(name: str) -> bool:
    """Import a small image from this machine's busybox, or tag a pulled one; False if neither can be had."""
    busybox = shutil.which("busybox")
    if busybox is None:
        return _docker("pull", "busybox:stable") and _docker("tag", "busybox:stable", name)
    linked = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False).stdout.split()
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "image.tar"
        with tarfile.open(archive, "w", dereference=True) as tar:
            tar.add(busybox, "bin/busybox")
            for library in (word for word in linked if word.startswith("/")):
                tar.add(library, library.lstrip("/"))
            for applet in ("sh", "sleep", "touch", "test"):
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "/bin/busybox"
                tar.addfile(link)
        return _docker("import", str(archive), name)
