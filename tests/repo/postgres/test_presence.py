"""Hosts are present while their daemons have their sessions, whatever happens to either end."""

import asyncio
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from repo.base import BaseRepository
from repo.errors import InvalidHost, StoreUnavailable, StoreUnusable
from repo.lifecycle import Sighting
from repo.postgres.hosts import lose_host
from repo.postgres.observer import Observer
from repo.postgres.presence import Presence
from repo.postgres.server import Server
from tests.support.network.namespaces import Namespace, need_network
from tests.support.store.pgbouncer import PgBouncer
from tests.support.store.postgres_server import PostgresServer
from tests.support.store.stores import made

pytestmark = pytest.mark.anyio

HANG_GUARD_S = 60.0
PRESENT = Sighting(True)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def observer(
    server: Server, lost_after: float = 30, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Observer]:
    seen = Observer(server, lost_after, longest_gap=10, clock=clock)
    try:
        yield seen
    finally:
        await seen.close()


@asynccontextmanager
async def daemon(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that holds a host's session, from when it does."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"present\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def holding(url: str, host: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.store.present_host", url, host]


async def until_absent(seen: Observer, host: str) -> dict[str | None, Sighting]:
    """Look until the host is absent: the server can only be asked."""
    async with asyncio.timeout(HANG_GUARD_S):
        while (found := await seen.look())[host].present:
            await asyncio.sleep(0.02)
    return found


async def until_present(seen: Observer, host: str) -> dict[str | None, Sighting]:
    async with asyncio.timeout(HANG_GUARD_S):
        while not (found := await seen.look())[host].present:
            await asyncio.sleep(0.02)
    return found


async def test_killed_daemon_leaves_its_host_absent(postgres: PostgresServer, database: str) -> None:
    url = postgres.tcp_url(database)
    async with (
        observer(Server(url)) as seen,
        daemon(*holding(url, "h1")) as one,
        daemon(*holding(url, "h1")) as other,
    ):
        assert await seen.look() == {"h1": PRESENT}
        one.kill()
        await one.wait()
        assert await seen.look() == {"h1": PRESENT}, "its other daemon is there"
        other.kill()
        await until_absent(seen, "h1")


async def test_cut_cable_is_noticed_and_a_stopped_daemon_is_none() -> None:
    """The keep-alives find the idle session, the user time-out the one whose answer was under way."""
    with need_network() as network, Namespace(network, "far") as far, PostgresServer(listen="*") as server:
        database = made(server)
        url = server.tcp_url(database, at=network.address)
        async with (
            observer(Server(server.url(database))) as seen,
            daemon(*holding(server.tcp_url(database), "stopped")) as stopped,
            daemon(*far.command(*holding(url, "idle"))),
            daemon(*far.command(*holding(url, "answered"), "2")),
        ):
            stopped.send_signal(signal.SIGSTOP)
            far.cut()
            assert all(sighting.present for sighting in (await seen.look()).values())
            await until_absent(seen, "idle")
            found = await until_absent(seen, "answered")
            assert found["stopped"] == PRESENT
            far.mend()
            await until_present(seen, "idle")


async def test_restarted_server_makes_no_host_lost() -> None:
    """Nobody was seen while it was away, and the count begins anew."""
    with PostgresServer() as server:
        url = server.tcp_url(made(server))
        clock = Clock()
        async with observer(Server(url), 5, clock=clock) as seen, daemon(*holding(url, "h1")) as process:
            assert await seen.look() == {"h1": PRESENT}
            process.send_signal(signal.SIGSTOP)
            with server.connection(seen_database(url)) as shell:
                shell.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
            await until_absent(seen, "h1")
            clock.now += 4
            assert (await seen.look())["h1"] == Sighting(False, 4.0)
            server.restart()
            clock.now += 1000
            with pytest.raises(StoreUnavailable):
                await seen.look()
            assert (await seen.look())["h1"] == Sighting(False, 0.0)
            clock.now += 5
            assert (await seen.look())["h1"] == Sighting(False, 5.0, lost=True)
            process.send_signal(signal.SIGCONT)
            await until_present(seen, "h1")


def seen_database(url: str) -> str:
    return url.rpartition("/")[2]


async def test_daemon_opens_another_session_when_the_server_is_back() -> None:
    with PostgresServer() as server:
        url = server.tcp_url(made(server))
        async with observer(Server(url)) as seen, daemon(*holding(url, "h1")) as process:
            assert process.stdout is not None
            server.kill()
            why = await process.stdout.readline()
            assert b"server closed the connection" in why
            server.start()
            assert await process.stdout.readline() == b"present\n", "the outage was reported once"
            assert await seen.look() == {"h1": PRESENT}


async def test_observer_that_was_stopped_counts_no_absence_that_it_did_not_see(
    postgres: PostgresServer, database: str
) -> None:
    server, clock = Server(postgres.tcp_url(database)), Clock()
    async with observer(server, 30, clock=clock) as seen:
        host = Presence(server, "h1")
        await host.open()
        await host.close()
        await until_absent(seen, "h1")
        clock.now += 9
        assert (await seen.look())["h1"] == Sighting(False, 9.0)
        assert seen.due_in == 21
        clock.now += 3600  # who knows whether it was there meanwhile
        assert (await seen.look())["h1"] == Sighting(False, 0.0)
        clock.now += 9
        assert (await seen.look())["h1"] == Sighting(False, 9.0)


async def test_host_that_comes_back_is_counted_anew(postgres: PostgresServer, database: str) -> None:
    server, clock = Server(postgres.tcp_url(database)), Clock()
    async with observer(server, 5, clock=clock) as seen:
        host = Presence(server, "h1")
        for _ in range(2):
            await host.open()
            assert await seen.look() == {"h1": PRESENT}
            await host.close()
            await until_absent(seen, "h1")
            clock.now += 4
            assert (await seen.look())["h1"] == Sighting(False, 4.0)


async def test_a_host_that_was_back_since_the_look_is_not_called_lost(
    postgres: PostgresServer, database: str
) -> None:
    server, clock = Server(postgres.tcp_url(database)), Clock()
    async with observer(server, 5, clock=clock) as stopped, observer(server) as other:
        host = Presence(server, "h1")
        for _ in range(2):  # it comes, and goes again while the first observer stands still
            await host.open()
            await until_present(other, "h1")
            await host.close()
            await until_absent(other, "h1")
            if not clock.now > 1000:
                await stopped.look()
                clock.now += 6
                assert (await stopped.look())["h1"].lost
        assert await stopped.changes() == ([], [])
        clock.now += 6
        await stopped.look()
        assert await stopped.changes() == (["h1"], [])


async def test_absence_is_written_down_once_and_cleared_by_the_return(
    postgres: PostgresServer, database: str
) -> None:
    server = Server(postgres.tcp_url(database))
    facts = "SELECT seen_at IS NOT NULL, absent_since, lost_at FROM decnet_reaper_host"
    async with observer(server) as seen:
        host = Presence(server, "h1")
        await host.open()
        await host.close()
        await until_absent(seen, "h1")
        assert postgres.psql(facts, database) == "t||", "a look changes nothing"
        assert await seen.changes() == ([], [])
        written = postgres.psql(facts, database)
        assert written.split("|")[1]
        await seen.look()
        assert await seen.changes() == ([], [])
        assert postgres.psql(facts, database) == written
        await host.open()
        assert postgres.psql(facts, database) == "t||"
        await host.close()


async def test_never_lost(postgres: PostgresServer, database: str) -> None:
    server, clock = Server(postgres.tcp_url(database)), Clock()
    async with observer(server, math.inf, clock=clock) as seen:
        host = Presence(server, "h1")
        await host.open()
        await host.close()
        await until_absent(seen, "h1")
        for _ in range(10):
            clock.now += 5
            found = await seen.look()
        assert found["h1"] == Sighting(False, 50.0)


async def test_time_outs_of_the_server_do_not_end_the_session(
    postgres: PostgresServer, database: str
) -> None:
    postgres.psql(f"ALTER DATABASE {database} SET datestyle = 'German, DMY'")
    for name in ("idle_session_timeout", "statement_timeout", "lock_timeout"):
        postgres.psql(f"ALTER DATABASE {database} SET {name} = '2s'")
    server = Server(postgres.tcp_url(database))
    async with observer(server) as seen:
        host = Presence(server, "h1")
        await host.open()
        connection = await server.connect()
        with pytest.raises(psycopg.OperationalError):  # the server ends a session of that age
            async for _ in connection.notifies():
                pass
        assert await seen.look() == {"h1": PRESENT}
        await host.close()


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_pooler_is_refused(postgres: PostgresServer, database: str, mode: str) -> None:
    with PgBouncer(postgres, "transaction" if mode == "transaction" else "session") as pooler:
        server = Server(pooler.url(database))
        with pytest.raises(StoreUnusable, match="behind a pooler such as PgBouncer"):
            await Presence(server, "h1").open()
        with pytest.raises(StoreUnusable, match="behind a pooler such as PgBouncer"):
            await Observer(server, 30, longest_gap=10).look()


async def test_standby_is_refused() -> None:
    with PostgresServer() as primary:
        database = made(primary)
        with primary.standby() as standby, pytest.raises(StoreUnusable, match="a standby, which knows no"):
            await Observer(Server(standby.tcp_url(database)), 30, longest_gap=10).look()


async def test_captured_host_that_locks_its_own_line_keeps_no_observer_waiting(
    postgres: PostgresServer, database: str
) -> None:
    server = Server(postgres.tcp_url(database))
    host = Presence(server, "h1")
    await host.open()
    await host.close()
    with postgres.connection(database) as shell, shell.transaction():
        shell.execute("SELECT FROM decnet_reaper_host FOR UPDATE")
        async with asyncio.timeout(HANG_GUARD_S), observer(server) as seen:
            await until_absent(seen, "h1")


async def test_a_row_is_lost_only_while_its_host_is_written_down_as_lost(
    postgres: PostgresServer, database: str, repository: BaseRepository
) -> None:
    """Its host came back between the look and the write; and went again."""
    data = {"decky_name": "d1", "operation": "deploy", "host_uuid": "h1"}
    lifecycle_id = await repository.create_lifecycle(data)
    await repository.claim_lifecycle(lifecycle_id, "w")

    async def lose() -> bool:
        ending = await repository.end_lifecycle(
            lifecycle_id, outcome="lost", owner="w", retry=True, if_host="lost"
        )
        return ending.applied

    host = Presence(Server(postgres.tcp_url(database)), "h1", "decnet-reaper worker 1")
    await host.open()
    assert not await lose()
    (there,) = await repository.list_hosts()
    assert (there["host_uuid"], there["daemons"]) == ("h1", ["decnet-reaper worker 1"])
    with pytest.raises(InvalidHost, match="h1 is present"):
        await lose_host(Server(postgres.tcp_url(database)), "h1")
    await host.close()
    async with observer(Server(postgres.tcp_url(database))) as seen:
        await until_absent(seen, "h1")
        assert not await lose(), "nobody has counted it out since it was there"
        await lose_host(Server(postgres.tcp_url(database)), "h1")
        assert await lose()


async def test_an_operator_s_word_is_told_once_and_holds_until_the_host_is_back(
    postgres: PostgresServer, database: str, repository: BaseRepository
) -> None:
    server = Server(postgres.tcp_url(database))
    host = Presence(server, "h1")
    await host.open()
    await host.close()
    async with observer(server, math.inf) as seen, observer(server, math.inf) as other:
        await until_absent(seen, "h1")
        await lose_host(server, "h1")
        with pytest.raises(InvalidHost, match="h2: not known"):
            await lose_host(server, "h2")
        for each in (seen, other):
            assert (await each.look())["h1"].lost
        assert await seen.changes() == (["h1"], [])
        assert await other.changes() == ([], [])
        await host.open()
        for each in (seen, other):
            assert await each.look() == {"h1": PRESENT}
        (back,) = (await seen.changes())[1]
        assert back.host_uuid == "h1"
        assert await other.changes() == ([], [])
        await host.close()
        assert not (await until_absent(seen, "h1"))["h1"].lost


async def test_a_host_that_was_never_there_is_not_lost(postgres: PostgresServer, database: str) -> None:
    postgres.psql("INSERT INTO decnet_reaper_host (host_uuid) VALUES ('h1')", database)
    clock = Clock()
    async with observer(Server(postgres.tcp_url(database)), 5, clock=clock) as seen:
        await seen.look()
        clock.now += 9
        assert (await seen.look())["h1"] == Sighting(False, 9.0)
