"""Hosts that go and come back: the daemons of several on one store."""

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import LiteralString

import psycopg
import pytest

from repo.errors import InvalidHost
from repo.postgres.hosts import lose_host
from repo.postgres.roles import add_host, remove_host
from repo.postgres.server import Server
from tests.support.audit import audit
from tests.support.fleet import HANG_GUARD_S, Fleet, wait_status
from tests.support.host import Host, cable, hosts
from tests.support.store.postgres_server import PostgresServer
from tests.support.survivor import surviving_compose
from worker.liveness.owner import start_ticks

pytestmark = pytest.mark.anyio

LOST = "host lost during operation; what became of it is not known"


def said_of(master: Fleet, name: str) -> list[str]:
    """What reapers have said of a host: whichever looks first, its own too."""
    of_hosts = [line for line in master.lines() if line["event"] in ("host.lost", "host.returned")]
    return [line["event"] for line in of_hosts if line["host_uuid"] == name]


async def returned(master: Fleet, name: str) -> None:
    """Wait until a reaper has said that a host is back."""
    async with asyncio.timeout(HANG_GUARD_S):
        while "host.returned" not in said_of(master, name):
            await asyncio.sleep(0.02)


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
        await returned(master, "h2")
        assert said_of(master, "h2") == ["host.lost", "host.returned"]
        await audit(master, client)


async def test_a_host_is_lost_when_it_was_absent_for_long_enough_and_not_a_sweep_later(
    master: Fleet,
) -> None:
    watching = await master.reaper(DECNET_REAPER_REAP_INTERVAL="3s", DECNET_REAPER_HOST_LOST_AFTER="1s")
    async with master.client() as client, hosts(master, "h2") as (host,):
        lifecycle_id = await host.deploy(client)
        await host.kill()
        await watching.log("lifecycle.lost", lifecycle_id=lifecycle_id)
        swept = await watching.log("reaper.swept")
        assert (swept["trigger"], swept["failed"]) == ("absence", 1)


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
        await returned(master, "h2")
        await audit(master, client)


async def test_a_host_whose_presence_is_not_back_yet_begins_nothing(
    master: Fleet, server: PostgresServer
) -> None:
    """What it began would be closed as lost too, a retry for good."""
    watching = await master.reaper()
    async with (
        master.client() as client,
        cable(server, master.settings.database) as (standing, url),
        hosts(master, "h2", presence_database=url) as (host,),
    ):
        running = await host.deploy(client)
        standing.down = True
        standing.cut()
        for daemon in host.daemons:
            await daemon.log("presence.lost", session="own")
        gated = host.fleet.document("decky-02", gate=host.fleet.gate())
        waiting = await client.deploy("decky-02", gated, host_uuid="h2")
        await watching.log("lifecycle.lost", lifecycle_id=running)
        host.fleet.gate().touch()
        await host.worker.log("lifecycle.late_write_refused", lifecycle_id=running)
        standing.down = False
        row = await client.wait(running, timeout=60, follow=True)
        assert (row["status"], row["attempt"]) == ("succeeded", 2)
        row = await client.wait(waiting, timeout=60)
        assert (row["status"], row["attempt"]) == ("succeeded", 1)
        await audit(master, client)


async def test_a_reaper_held_up_before_its_write_closes_no_row_of_a_host_that_was_back(
    master: Fleet, server: PostgresServer
) -> None:
    """It came back meanwhile, its worker still at work, and went again: it is counted out anew first."""
    watching = await master.reaper()
    database = master.settings.database.rpartition("/")[2]
    async with (
        master.client() as client,
        cable(server, master.settings.database) as (standing, url),
        hosts(master, "h2", database=url) as (host,),
    ):
        lifecycle_id = await host.deploy(client)
        with server.connection(database) as shell, shell.transaction():
            shell.execute("LOCK TABLE decky_lifecycle IN SHARE MODE")  # who reads goes on, who writes waits
            standing.down = True
            standing.cut()
            await watching.log("host.lost", host_uuid="h2")
            await until(
                shell,
                "EXISTS (SELECT FROM pg_locks WHERE relation = 'decky_lifecycle'::regclass"
                " AND mode = 'RowExclusiveLock' AND NOT granted)",
            )
            standing.down = False
            for daemon in host.daemons:
                await daemon.log("presence.recovered", session="own")
            standing.down = True
            standing.cut()
            await until(shell, "NOT decnet_reaper_is_present('h2')")
        await watching.log("lifecycle.lost", lifecycle_id=lifecycle_id)
        assert len(watching.logged("host.lost", host_uuid="h2")) == 2
        host.fleet.gate().touch()
        standing.down = False
        await host.worker.log("lifecycle.late_write_refused", lifecycle_id=lifecycle_id)
        row = await client.wait(lifecycle_id, timeout=60, follow=True)
        assert (row["status"], row["attempt"]) == ("succeeded", 2)
        await audit(master, client)


async def until(shell: psycopg.Connection, condition: LiteralString) -> None:
    """Ask until it is so: a server can only be asked."""
    async with asyncio.timeout(HANG_GUARD_S):
        while shell.execute(f"SELECT {condition}").fetchone() != (True,):
            await asyncio.sleep(0.02)


async def test_a_host_that_an_operator_gives_up_is_told_and_one_that_he_removes_is_forgotten(
    master: Fleet,
) -> None:
    watching = await master.reaper(DECNET_REAPER_HOST_LOST_AFTER="never", DECNET_REAPER_MAX_ATTEMPTS="1")
    administrator = Server(master.settings.database)
    async with master.client() as client, AsyncExitStack() as stack:
        for name, give_up in (("h2", lose_host), ("h3", remove_host)):
            host = Host(master, name)
            stack.push_async_callback(host.fleet.close)
            host.worker = await host.fleet.worker()
            lifecycle_id = await host.deploy(client)
            with pytest.raises(InvalidHost, match=f"host {name} is present"):
                await give_up(administrator, name)
            await host.worker.kill()
            async with asyncio.timeout(HANG_GUARD_S):
                while True:  # until the server has noticed its end
                    with suppress(InvalidHost):
                        await give_up(administrator, name)
                        break
            await watching.log("host.lost", host_uuid=name)
            assert (await wait_status(client, lifecycle_id, "failed"))["outcome"] == "lost"
        async with asyncio.timeout(HANG_GUARD_S):
            while len(known := await client.repository.list_hosts()) > 2:
                await asyncio.sleep(0.02)
        assert {host["host_uuid"] for host in known} == {None, "h2"}
        assert len(watching.logged("host.lost")) == 2


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
