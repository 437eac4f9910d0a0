"""Three hosts of a master, and a cable that is cut: `sudo ./run fleet` starts it in namespaces of its own."""

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import structlog

from examples.fleet.hosts import PATIENCE_S, FleetError, Machine
from examples.fleet.network import Namespace, Network
from examples.fleet.servers import Postgres, Redis
from repo.base import Lifecycle
from worker.client import LifecycleClient

NAMES = ("h1", "h2", "h3")
LOST_AFTER_S = 5


@dataclass
class Story:
    """What happens to the hosts of a master.

    Attributes:
        ready: a file, without which the slow deploy does not end.
        master: whose reaper may look at all hosts.
        hosts: by name.
        cables: theirs.
        client: the master's.
    """

    ready: Path
    master: Machine
    hosts: dict[str, Machine]
    cables: dict[str, Namespace]
    client: LifecycleClient

    async def tell(self) -> bool:
        """All of it; whether it came out as it should."""
        click.echo("2. A deploy on each host:")
        ids = [await self._deploy(f"decky-{name}", name) for name in NAMES]
        deployed = [await self._end(lifecycle_id) for lifecycle_id in ids]
        await self._show("list")
        lost = await self._cut("h2")
        click.echo("4. The others work on. h2 finishes its deploy, and can tell nobody.")
        more = await self._end(await self._deploy("decky-more", "h1"))
        self.ready.touch()
        retry = await self._mend("h2", lost)
        await self._show("list")
        good = all(row["status"] == "succeeded" for row in (*deployed, more, retry))
        once = len(self.master.logged("reaper", "host.returned")) == 1
        return good and once and lost["outcome"] == "lost"

    async def _cut(self, name: str) -> Lifecycle:
        click.echo(f"3. A slow deploy on {name}, and its cable is cut in the middle: packets are dropped.")
        lifecycle_id = await self._deploy("decky-slow", name, ready=self.ready)
        async with asyncio.timeout(PATIENCE_S):
            while (await self.client.get(lifecycle_id))["status"] != "running":
                await asyncio.sleep(0.1)
        self.cables[name].cut()
        began = time.monotonic()
        row = await self._end(lifecycle_id)
        click.echo(f"   after {time.monotonic() - began:.0f} s its row says {row['outcome']}: {row['error']}")
        click.echo(
            f"   (by default, with host_lost_after at 30 s and not {LOST_AFTER_S}, it takes 25 s more)"
        )
        await self._show("hosts")
        return row

    async def _mend(self, name: str, lost: Lifecycle) -> Lifecycle:
        click.echo("5. The cable is mended:")
        began = time.monotonic()
        self.cables[name].mend()
        late = await self.hosts[name].line("worker", "lifecycle.late_write_refused")
        click.echo(f"   {name} says too late that its deploy {late['status']}: a closed row stays as it is")
        back = await self.master.line("reaper", "host.returned")
        click.echo(f"   host.returned: {back['host_uuid']} had been lost for {back['lost_s']:.0f} s")
        retry = await self._end(lost["retry_id"] or "")
        click.echo(f"   the retry {retry['status']}, {time.monotonic() - began:.0f} s after the mending")
        return retry

    async def _deploy(self, decky: str, host: str, ready: Path | None = None) -> str:
        service: dict[str, Any] = {"command": ["sleep", "3600"]}
        if ready is not None:
            test = ["CMD", "test", "-e", str(ready)]
            service["healthcheck"] = {"test": test, "interval": "1s", "retries": 300}
        return await self.client.deploy(decky, {"services": {decky: service}}, host_uuid=host)

    async def _end(self, lifecycle_id: str) -> Lifecycle:
        return await self.client.wait(lifecycle_id, timeout=PATIENCE_S)

    async def _show(self, command: str) -> None:
        await show(self.master, command)


async def show(machine: Machine, command: str) -> None:
    """A command, and what it prints."""
    click.echo(f"\n   $ decnet-reaper {command}")
    for line in (await machine.run(command)).splitlines():
        click.echo(f"   {line}")
    click.echo()


def make_master(directory: Path, address: str) -> Machine:
    """The master and its servers, which run."""
    database, queue = Postgres(directory, address), Redis(directory, address)
    database.start()
    queue.start()
    settings = {
        "database": database.url,
        "database_password": database.password,
        "redis": queue.url,
        "host_lost_after": f"{LOST_AFTER_S}s",
    }
    return Machine(directory, "master", "\n".join(f"{key} = {json.dumps(settings[key])}" for key in settings))


async def tell(directory: Path, network: Network, stack: contextlib.ExitStack) -> bool:
    """Make all of them, then let the cable be cut; whether it came out as it should."""
    click.echo("Three hosts, each a network namespace with a cable to the master's PostgreSQL and Redis.\n")
    master = make_master(directory, network.address)
    click.echo("1. The master's reaper, and on each host what `hosts add` printed, a worker and a reaper:")
    await master.run("doctor", "--create")
    await master.start("reaper")
    cables = {name: stack.enter_context(Namespace(network, name)) for name in NAMES}

    async def started(name: str) -> Machine:
        host = Machine(directory, name, await master.run("hosts", "add", name), cables[name])
        await asyncio.gather(host.start("worker"), host.start("reaper"))
        return host

    hosts = dict(zip(NAMES, await asyncio.gather(*map(started, NAMES)), strict=True))
    await show(master, "hosts")
    async with LifecycleClient(master.settings) as client:
        return await Story(directory / "ready", master, hosts, cables, client).tell()


def main() -> int:
    """Tell it in a directory that is made, the one argument; the exit status."""
    directory = Path(sys.argv[1])
    directory.mkdir(mode=0o755)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # the master's own log: not shown
    good = False
    try:
        with Network() as network, contextlib.ExitStack() as stack:
            good = asyncio.run(tell(directory, network, stack))
    except (FleetError, TimeoutError) as error:
        click.echo(f"fleet: {error or 'waited in vain'}", err=True)
    click.echo(
        "Everything was as it should be, and nothing is left running." if good else "Something went wrong."
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
