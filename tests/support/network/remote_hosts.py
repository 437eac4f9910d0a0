"""A master here and hosts behind cables: whole daemons in network namespaces, one PostgreSQL and one Redis.

An operation is a program that holds a lock of its decky's, so that two at once would be seen, and ends when
its gate is opened.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

from examples.fleet.network import Namespace, Network
from repo.base import Lifecycle
from tests.support.fleet import HANG_GUARD_S, Daemon, Fleet, running_fleet, wait_status
from tests.support.network.ports import free_port
from worker.client import LifecycleClient
from worker.liveness.owner import Owner
from worker.queue import Delivery, Queue

_OPERATION = """#!/bin/sh
exec 8>>"$0.$2.lock"
flock --nonblock 8 || { echo "$2" >>"$0.overlaps"; exit 1; }
until [ -e "$0.$2.open" ]; do sleep 0.1; done
"""
_DOCUMENT: dict[str, Any] = {"services": {"base": {"command": ["true"]}}}


class RemoteHost:
    """One host: a namespace, directories and daemons of its own.

    Args:
        master: whose store and queue it uses, and whose auditor reads its log too.
        cable: the namespace that its daemons run in.
        name: its HOST_UUID.
    """

    def __init__(self, master: Fleet, cable: Namespace, name: str, **settings: str) -> None:
        self.cable = cable
        self.name = name
        root = master.root / name
        root.mkdir()
        self._program = root / "operate"
        self._program.write_text(_OPERATION)
        self._program.chmod(0o755)
        runtime = {"runtime": "command", "runtime_command": str(self._program)}
        self.fleet = Fleet(root, **{**runtime, "host_uuid": name, "reap_interval": "500ms", **settings})
        self.fleet.daemons = master.daemons

    async def start(self) -> Self:
        """Start its daemons, and return when they are ready."""
        self.worker, self.reaper = await asyncio.gather(*map(self._started, ("worker", "reaper")))
        return self

    async def _started(self, name: str) -> Daemon:
        daemon = await self.fleet.start_in(tuple(self.cable.command()), name)
        await daemon.log(f"{name}.started")
        return daemon

    async def submit(self, client: LifecycleClient, decky: str) -> str:
        """A deploy that runs until its gate is open."""
        return await client.deploy(decky, _DOCUMENT, host_uuid=self.name)

    async def running(self, client: LifecycleClient, decky: str) -> str:
        """The same, once it runs."""
        lifecycle_id = await self.submit(client, decky)
        await wait_status(client, lifecycle_id, "running")
        return lifecycle_id

    def open(self, *deckies: str) -> None:
        """Let the operations on these deckies come to their end."""
        for decky in deckies:
            Path(f"{self._program}.{decky}.open").touch()

    @property
    def overlaps(self) -> list[str]:
        """Deckies of which an operation began while another was at work."""
        told = Path(f"{self._program}.overlaps")
        return told.read_text().split() if told.exists() else []


class Master:
    """The master's side, whose reaper sees all hosts.

    Attributes:
        fleet: its installation.
        client: its client.
        reaper: its daemon.
        hosts: all.
    """

    def __init__(
        self, fleet: Fleet, client: LifecycleClient, reaper: Daemon, hosts: Sequence[RemoteHost]
    ) -> None:
        self.fleet = fleet
        self.client = client
        self.reaper = reaper
        self.hosts = hosts

    async def said(self, event: str, host: str) -> None:
        """Wait until any reaper, who is the one to tell of it, has logged this of a host."""
        async with asyncio.timeout(HANG_GUARD_S):
            while host not in self.told(event):
                await asyncio.sleep(0.05)

    def told(self, event: str) -> list[str]:
        """Of which hosts any daemon has logged an event of hosts, in their order."""
        return sorted(line["host_uuid"] for line in self.fleet.lines() if line["event"] == event)

    async def looked_after(self) -> None:
        """Assert of each open row that its owner lives, a job of it is queued, or its host is away."""
        states = {host["host_uuid"]: host["present"] for host in await self.client.repository.list_hosts()}
        queue = Queue(self.fleet.settings.redis)
        try:
            first: set[str] = set()
            for row in sorted(await self.client.repository.list_open_lifecycles(), key=lambda row: row["id"]):
                waits_for_another = row["decky_name"] in first
                first.add(row["decky_name"])
                if row["status"] == "running":
                    owner = Owner.parse(row["owner"])
                    assert owner is not None
                    assert owner.alive, row["id"]
                elif states[row["host_uuid"]] and not waits_for_another:
                    await self._until_queued(row, queue)
        finally:
            await queue.close()

    async def _until_queued(self, row: Lifecycle, queue: Queue) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            while row["status"] == "pending" and await queue.states([Delivery.latest(row)]) == ["absent"]:
                await asyncio.sleep(0.05)
                row = await self.client.get(row["id"])


@asynccontextmanager
async def behind_cables(
    network: Network, database: str, names: Sequence[str], **settings: str
) -> AsyncIterator[Master]:
    """A master on this machine, and its hosts.

    Args:
        network: that all are in.
        database: URL of the store, by the address of this machine in the network.
        names: of the hosts.
        settings: of all.
    """
    async with AsyncExitStack() as stack:
        cables = [stack.enter_context(Namespace(network, name)) for name in names]
        master = await stack.enter_async_context(running_fleet(database=database, **settings))
        await master.kill_queue()
        port = free_port("*")
        await master.start_queue("--port", f"{port}", "--bind", "*", "--protected-mode", "no")
        shared = {"database": database, "redis": f"redis://{network.address}:{port}", **settings}
        master.set(**{"reap_interval": "500ms", **shared})
        hosts = [RemoteHost(master, cable, name, **shared) for cable, name in zip(cables, names, strict=True)]
        for host in hosts:
            stack.push_async_callback(host.fleet.close)
        reaper, _ = await asyncio.gather(master.reaper(), asyncio.gather(*(host.start() for host in hosts)))
        client = await stack.enter_async_context(master.client())
        yield Master(master, client, reaper, hosts)
