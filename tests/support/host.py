"""More hosts of a fleet whose store is on a PostgreSQL server, and the cable between one of them and it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.support.fleet import Daemon, Fleet, wait_status
from tests.support.network.tcp_proxy import Proxy, proxy
from tests.support.store.postgres_server import PostgresServer
from worker.client import LifecycleClient


class Host:
    """One more host of a master: directories and daemons of its own, the store and the queue are shared."""

    def __init__(self, master: Fleet, name: str, **settings: str) -> None:
        root = master.root / name
        root.mkdir()
        shared = {"database": master.settings.database, "redis": master.settings.redis}
        more = {"reap_interval": "500ms", "host_lost_after": "never"}
        self.fleet = Fleet(root, **{**shared, **more, "host_uuid": name, **settings})
        self.fleet.daemons = master.daemons  # the master's auditor reads their log too
        self.name = name

    async def start(self) -> None:
        self.worker = await self.fleet.worker()
        self.reaper = await self.fleet.reaper()

    @property
    def daemons(self) -> tuple[Daemon, Daemon]:
        return self.worker, self.reaper

    async def kill(self) -> None:
        for daemon in self.daemons:
            await daemon.kill()

    async def deploy(self, client: LifecycleClient, decky: str = "decky-01") -> str:
        """A deploy that runs until the host's gate is made."""
        document = self.fleet.document(decky, gate=self.fleet.gate())
        lifecycle_id = await client.deploy(decky, document, host_uuid=self.name)
        await wait_status(client, lifecycle_id, "running")
        return lifecycle_id


@asynccontextmanager
async def hosts(master: Fleet, *names: str, **settings: str) -> AsyncIterator[list[Host]]:
    async with AsyncExitStack() as stack:
        found = []
        for name in names:
            host = Host(master, name, **settings)
            stack.push_async_callback(host.fleet.close)
            await host.start()
            found.append(host)
        yield found


@asynccontextmanager
async def cable(server: PostgresServer, url: str) -> AsyncIterator[tuple[Proxy, str]]:
    async with proxy("127.0.0.1", server.port) as standing:
        yield standing, url.replace(f":{server.port}/", f":{standing.port}/")
