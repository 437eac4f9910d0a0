"""Hosts that go and come back, and all that looks like it and is not: the daemons of several on one store."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from repo.postgres.roles import add_host, remove_host
from repo.postgres.server import Server
from tests.support.audit import audit
from tests.support.fleet import Daemon, Fleet, running_fleet, wait_status
from tests.support.machine.wall_clock import WallClock, find_libfaketime
from tests.support.needs import lacking
from tests.support.network.tcp_proxy import Proxy, proxy
from tests.support.store.pgbouncer import PgBouncer
from tests.support.store.postgres_server import PostgresServer
from tests.support.survivor import surviving_compose
from worker.client import LifecycleClient
from worker.liveness.owner import start_ticks

pytestmark = pytest.mark.anyio

LOST = "host lost during operation; what became of it is not known"


@pytest.fixture
async def master(server: PostgresServer) -> AsyncIterator[Fleet]:
    """The master's side; its reaper is impatient."""
    url = server.tcp_url(server.database())
    async with running_fleet(database=url, host_lost_after="2s", reap_interval="500ms") as fleet:
        yield fleet


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


async def test_a_host_that_goes_is_lost_and_its_retry_runs_when_it_is_back(master: Fleet) -> None:
    watching = await master.reaper()
    async with master.client() as client, hosts(master, "h2") as (host,):
        lifecycle_id = await host.deploy(client)
        waiting = await client.mutate("decky-01", services=[], host_uuid="h2")
        await host.kill()
        told = await watching.log("host.lost", host_uuid="h2")
        assert told["absent_s"] >= 2
        row = await wait_status(client, lifecycle_id, "failed")
        assert (row["outcome"], row["error"]) == ("lost", LOST)
        retry = await client.get(row["retry_id"] or "")
        assert (retry["status"], retry["host_uuid"]) == ("pending", "h2")
        assert (await client.get(waiting))["status"] == "pending", "it waits for its host"
        host.fleet.gate().touch()
        await host.start()
        for waited in (lifecycle_id, waiting):
            assert (await client.wait(waited, timeout=60, follow=True))["status"] == "succeeded"
        await watching.log("host.returned", host_uuid="h2")
        assert len(watching.logged("host.lost")) == len(watching.logged("host.returned")) == 1
        await audit(master, client)


@asynccontextmanager
async def cable(server: PostgresServer, url: str) -> AsyncIterator[tuple[Proxy, str]]:
    async with proxy("127.0.0.1", server.port) as standing:
        yield standing, url.replace(f":{server.port}/", f":{standing.port}/")


async def test_a_late_write_of_a_lost_host_is_refused_and_told(master: Fleet, server: PostgresServer) -> None:
    watching = await master.reaper()
    async with (
        master.client() as client,
        cable(server, master.settings.database) as (standing, url),
        hosts(master, "h2", database=url) as (host,),
    ):
        lifecycle_id = await host.deploy(client)
        standing.down = True
        standing.cut()
        assert (await host.worker.log("presence.lost"))["session"] == "own"
        await watching.log("lifecycle.lost", lifecycle_id=lifecycle_id)
        host.fleet.gate().touch()
        standing.down = False
        late = await host.worker.log("lifecycle.late_write_refused", lifecycle_id=lifecycle_id)
        assert (late["status"], late["refused_error"]) == ("succeeded", None)
        row = await client.wait(lifecycle_id, timeout=60, follow=True)
        assert (row["status"], row["attempt"]) == ("succeeded", 2)
        await host.worker.log("presence.recovered")
        await watching.log("host.returned", host_uuid="h2")
        await audit(master, client)


async def test_what_outlived_a_lost_row_is_ended_by_its_own_host(master: Fleet) -> None:
    watching = await master.reaper()
    async with master.client() as client, hosts(master, "h2") as (host,):
        await host.kill()
        survivor = surviving_compose(host.fleet)
        host.worker = await host.fleet.worker()
        lifecycle_id = await host.deploy(client)
        pid = await survivor()
        await host.worker.kill()
        await watching.log("lifecycle.lost", lifecycle_id=lifecycle_id)
        assert start_ticks(pid) is not None
        back = await host.fleet.reaper()
        assert (await back.log("lifecycle.survivors_ended"))["lifecycle_id"] == lifecycle_id
        assert start_ticks(pid) is None


async def test_what_is_no_loss_makes_no_host_lost(master: Fleet) -> None:
    """Stopped daemons, upgraded ones, a wall clock that is set: while another host is lost."""
    clock = WallClock(master.root / "clock", find_libfaketime() or lacking("libfaketime"))
    watching = await master.reaper(**clock.environment)
    async with master.client() as client, hosts(master, "stopped", "upgraded", "gone") as found:
        stopped, upgraded, gone = found
        rows = [await host.deploy(client) for host in found]
        for daemon in stopped.daemons:
            daemon.signal(signal.SIGSTOP)
        clock.set("+1d")
        await gone.kill()
        old = upgraded.reaper
        upgraded.reaper = await upgraded.fleet.reaper()
        await old.stop()
        await watching.log("lifecycle.lost", lifecycle_id=rows[2])
        clock.set("-1d")
        for daemon in stopped.daemons:
            daemon.signal(signal.SIGCONT)
        for host, row in zip((stopped, upgraded), rows, strict=False):
            host.fleet.gate().touch()
            assert (await client.wait(row, timeout=60))["status"] == "succeeded"
        assert {line["host_uuid"] for line in watching.logged("host.lost")} == {"gone"}
        await audit(master, client)


async def test_a_database_or_an_observer_that_goes_and_comes_back_makes_no_host_lost(
    master: Fleet, server: PostgresServer
) -> None:
    async with (
        master.client() as client,
        cable(server, master.settings.database) as (standing, url),
        hosts(master, "h2") as (host,),
    ):
        watching = await master.reaper(DECNET_REAPER_PRESENCE_DATABASE=url)
        lifecycle_id = await host.deploy(client)
        standing.down = True
        standing.cut()
        await watching.log("presence.lost", session="observer")
        standing.down = False
        for session in ("observer", "own"):
            await watching.log("presence.recovered", session=session)
        await asyncio.to_thread(server.stop)
        await host.reaper.log("presence.lost", session="own")
        # a sweep fails in vain for longer than a host may be absent
        await asyncio.sleep(3)
        server.start()  # not in a thread: it would end with that
        for daemon in host.daemons:
            await daemon.log("presence.recovered", session="own")
        await watching.log("presence.recovered", count=2, session="own")
        host.fleet.gate().touch()
        row = await client.wait(lifecycle_id, timeout=60)
        assert (row["status"], row["attempt"]) == ("succeeded", 1)
        assert watching.logged("host.lost") == []
        await audit(master, client)


async def test_a_daemon_behind_a_pooler_needs_the_server_itself_for_its_presence(
    master: Fleet, server: PostgresServer
) -> None:
    direct = master.settings.database
    with PgBouncer(server, "transaction") as pooler:
        master.set(database=pooler.url(direct.rpartition("/")[2]), log_format="console")
        for daemon in ("worker", "reaper"):
            status, _, err = await master.run(daemon)
            assert (status, err.count("\n")) == (3, 1)
            assert "behind a pooler such as PgBouncer" in err
            assert "presence_database" in err
        master.set(presence_database=direct, log_format="json")
        await master.worker()
        await master.reaper()
        async with master.client() as client:
            row = await client.wait(await client.deploy("decky-01", master.document("decky-01")), timeout=60)
            assert row["status"] == "succeeded"


async def test_a_host_with_a_role_of_its_own_judges_no_other(master: Fleet, server: PostgresServer) -> None:
    administrator = Server(master.settings.database)
    role = await add_host(administrator, "h3")
    url = server.tcp_url(master.settings.database.rpartition("/")[2], role.role, role.password)
    try:
        async with master.client() as client, hosts(master, "h2") as (host,):
            lifecycle_id = await host.deploy(client)
            captured = Host(master, "h3", database=url, host_lost_after="1s")
            await captured.start()
            await host.kill()
            told = await (await master.reaper()).log("host.lost")
            assert told["host_uuid"] == "h2"
            assert (await wait_status(client, lifecycle_id, "failed"))["outcome"] == "lost"
            assert captured.reaper.logged("host.lost") == []
            assert captured.reaper.logged("presence.lost") == []
            await captured.kill()
    finally:
        await remove_host(administrator, "h3")
