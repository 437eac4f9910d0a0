"""What looks like a host that goes, and is none: it makes no host lost."""

import asyncio
import os
import signal
import sys
from urllib.parse import quote

import pytest

from tests.support.audit import audit
from tests.support.fleet import Fleet, gated, running_fleet, wait_status
from tests.support.host import Host, cable, hosts
from tests.support.machine.wall_clock import WallClock, find_libfaketime
from tests.support.needs import lacking
from tests.support.store.pgbouncer import PgBouncer
from tests.support.store.postgres_server import ADMIN_PASSWORD, PostgresServer

pytestmark = pytest.mark.anyio


async def test_what_is_no_loss_makes_no_host_lost(master: Fleet) -> None:
    """Stopped daemons, upgraded ones, a long garbage collection, a clock that is set; while one is lost."""
    clock = WallClock(master.root / "clock", find_libfaketime() or lacking("libfaketime"))
    watching = await master.reaper(**clock.environment)
    async with master.client() as client, hosts(master, "stopped", "upgraded", "gone") as found:
        stopped, upgraded, gone = found
        rows = [await host.deploy(client) for host in found]
        collecting, fifo = Host(master, "collecting"), master.root / "fifo"
        os.mkfifo(fifo)
        collector = (sys.executable, "-m", "tests.support.programs.long_collection", str(fifo))
        collecting.worker = await collecting.fleet.start_in(collector, "worker")
        collected = await collecting.deploy(client)
        collection = os.open(fifo, os.O_WRONLY)
        for daemon in stopped.daemons:
            daemon.signal(signal.SIGSTOP)
        clock.set("+1d")
        await gone.kill()
        old = upgraded.reaper
        upgraded.reaper = await upgraded.fleet.reaper()
        await old.stop()
        # Closed by whichever reaper reads first that the host is written down as lost.
        assert (await wait_status(client, rows[2], "failed"))["outcome"] == "lost"
        clock.set("-1d")
        for daemon in stopped.daemons:
            daemon.signal(signal.SIGCONT)
        os.close(collection)
        for host, row in [(stopped, rows[0]), (upgraded, rows[1]), (collecting, collected)]:
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


async def test_a_database_that_fails_over_to_its_standby_makes_no_host_lost_and_loses_no_row() -> None:
    with PostgresServer() as primary, primary.standby() as standby:
        primary.set({"synchronous_standby_names": "*"})
        servers = ",".join(f"127.0.0.1:{server.port}" for server in (primary, standby))
        administrator = f"postgres:{quote(ADMIN_PASSWORD)}"
        url = f"postgresql://{administrator}@{servers}/{primary.database()}?target_session_attrs=read-write"
        settings = {"database": url, "host_lost_after": "2s", "reap_interval": "500ms"}
        async with running_fleet(**settings) as fleet, fleet.client() as client:
            daemons = [await fleet.worker(), await fleet.reaper()]
            lifecycle_id = await gated(fleet, client)
            waiting = await client.mutate("decky-01", services=[])
            primary.kill()
            for daemon in daemons:
                await daemon.log("presence.lost", session="own")
            await asyncio.to_thread(standby.promote)
            for daemon in daemons:
                await daemon.log("presence.recovered", session="own")
            fleet.gate().touch()
            for waited in (lifecycle_id, waiting):
                row = await client.wait(waited, timeout=60)
                assert (row["status"], row["attempt"]) == ("succeeded", 1)
            assert daemons[1].logged("host.lost") == []
            await audit(fleet, client)
