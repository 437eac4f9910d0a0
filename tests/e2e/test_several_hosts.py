"""Three hosts behind cables that are cut: packets are dropped, both ways or one way, at each step of a row.

Whatever is cut, when all has come to rest the auditor finds one history that every log tells, and no decky on
which two operations were at work at once.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from examples.fleet.network import Network
from tests.support.audit import audit
from tests.support.fleet import wait_status
from tests.support.network.namespaces import make_bad, need_network
from tests.support.network.remote_hosts import Master, behind_cables
from tests.support.store.postgres_server import ADMIN, ADMIN_PASSWORD, PostgresServer

pytestmark = pytest.mark.anyio

HOSTS = ("h1", "h2", "h3")
PATIENCE_S = 90
IMPATIENT = {"host_lost_after": "2s"}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with need_network() as network:
        yield network


@pytest.fixture(scope="module")
def server(network: Network) -> Iterator[PostgresServer]:
    with PostgresServer(listen="*") as server:
        yield server


async def come_to_rest(master: Master, *ids: str, gone: Sequence[str]) -> None:
    """All is done, retries too; each host that was gone was said once; the auditor has nothing to say."""
    for lifecycle_id in ids:
        row = await master.client.wait(lifecycle_id, timeout=PATIENCE_S, follow=True)
        assert row["status"] == "succeeded", row["error"]
    assert [host.overlaps for host in master.hosts] == [[]] * len(master.hosts)
    for host in gone:
        await master.said("host.returned", host)
    assert (master.told("host.lost"), master.told("host.returned")) == (list(gone), list(gone))
    assert set(await asyncio.gather(*(daemon.stop() for daemon in master.fleet.daemons))) == {0}
    await audit(master.fleet, master.client)


async def told_lost(master: Master, *names: str) -> list[str]:
    """Which hosts are said to be lost, once these are: by whichever reaper was first, on a bad line too."""
    for name in names:
        await master.said("host.lost", name)
    return master.told("host.lost")


async def lost(master: Master, *ids: str) -> None:
    """Wait until these rows are closed as those of lost hosts."""
    for lifecycle_id in ids:
        assert (await wait_status(master.client, lifecycle_id, "failed"))["outcome"] == "lost"


async def test_hosts_are_cut_off_at_each_step_of_a_row(network: Network, server: PostgresServer) -> None:
    database = server.tcp_url(server.database(), at=network.address)
    async with behind_cables(network, database, HOSTS, **IMPATIENT) as master:
        claims, works, ends = master.hosts
        working = await works.running(master.client, "in-the-middle")
        ending = await ends.running(master.client, "at-its-end")
        claimed = await claims.running(master.client, "claimed")
        # Some are claimed when the cable goes, one is asked for while it is away.
        claiming = [await claims.submit(master.client, f"claiming-{number}") for number in range(5)]
        for host in master.hosts:
            host.cable.cut()
        ends.open("at-its-end")
        queued = await claims.submit(master.client, "queued")
        await master.looked_after()
        await lost(master, working, ending, claimed)
        await master.looked_after()
        assert await told_lost(master, *HOSTS) == list(HOSTS)
        assert (await master.client.get(queued))["status"] == "pending", "it waits for its host"
        works.open("in-the-middle")
        claims.open("claimed", "queued", *(f"claiming-{number}" for number in range(5)))
        for host in master.hosts:
            host.cable.mend()
        for host, lifecycle_id in ((works, working), (ends, ending), (claims, claimed)):
            late = await host.worker.log("lifecycle.late_write_refused", lifecycle_id=lifecycle_id)
            assert late["status"] == "succeeded"
        await master.looked_after()
        for host in master.hosts:
            await host.worker.log("presence.recovered")
        await come_to_rest(master, working, ending, claimed, queued, *claiming, gone=HOSTS)


async def test_hosts_that_are_heard_or_hear_only_are_lost_and_a_bad_line_is_none(
    network: Network, server: PostgresServer
) -> None:
    database = server.tcp_url(server.database(), at=network.address)
    async with behind_cables(network, database, HOSTS, **IMPATIENT) as master:
        mute, deaf, bad = master.hosts
        rows = [await host.running(master.client, f"decky-{host.name}") for host in master.hosts]
        ending = await deaf.running(master.client, "at-its-end")
        mute.cable.cut("OUTPUT")
        deaf.cable.cut("INPUT")
        make_bad(bad.cable, loss=0.1)
        deaf.open("at-its-end")  # its write may arrive; the answer doesn't
        await lost(master, *rows[:2])
        assert await told_lost(master, *HOSTS[:2]) == ["h1", "h2"]
        bad.open("decky-h3")
        more = await bad.submit(master.client, "decky-more")
        bad.open("decky-more")
        for lifecycle_id in (rows[2], more):
            row = await master.client.wait(lifecycle_id, timeout=PATIENCE_S)
            assert (row["status"], row["attempt"]) == ("succeeded", 1)
        await master.looked_after()
        for host in master.hosts:
            host.open(f"decky-{host.name}")
            host.cable.mend()
        await come_to_rest(master, *rows, more, ending, gone=HOSTS[:2])


async def test_a_failover_of_the_database_makes_no_host_lost_but_the_one_that_is(network: Network) -> None:
    with ExitStack() as stack:
        primary = stack.enter_context(PostgresServer(listen="*"))
        standby = stack.enter_context(primary.standby())
        primary.set({"synchronous_standby_names": "*"})  # what was acknowledged is there too
        places = f"{network.address}:{primary.port},{network.address}:{standby.port}"
        database = f"postgresql://{ADMIN}:{ADMIN_PASSWORD}@{places}/{primary.database()}"
        url = f"{database.replace(' ', '%20')}?target_session_attrs=read-write"
        async with behind_cables(network, url, HOSTS, **IMPATIENT) as master:
            rows = [await host.running(master.client, f"decky-{host.name}") for host in master.hosts]
            gone = master.hosts[2]
            primary.kill()
            gone.cable.cut()
            master.hosts[0].open("decky-h1")  # it ends while there is no database
            for host in master.hosts[:2]:
                await host.worker.log("presence.lost")
            await asyncio.to_thread(standby.promote)
            for host in master.hosts[:2]:
                for daemon in (host.worker, host.reaper):
                    await daemon.log("presence.recovered")
            master.hosts[1].open("decky-h2")
            for lifecycle_id in rows[:2]:
                row = await master.client.wait(lifecycle_id, timeout=PATIENCE_S)
                assert (row["status"], row["attempt"]) == ("succeeded", 1)
            await lost(master, rows[2])
            gone.open("decky-h3")
            gone.cable.mend()
            await come_to_rest(master, *rows, gone=HOSTS[2:])
