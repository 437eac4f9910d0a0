"""With full control of a host, its role and its password, an attacker can only lie about that host.

Each test does over the wire what the attacker would do, with the role's own credentials. What it may do with
the queue: test_captured_queue.py.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from reaper.settings import ReaperSettings
from reaper.sweep.hosts import Hosts
from reaper.sweep.report import Scope
from reaper.sweep.sweeper import Sweeper
from repo.errors import StoreUnusable
from repo.factory import get_repository
from repo.postgres.hosts import lose_host
from repo.postgres.observer import Observer
from repo.postgres.presence import Presence
from repo.postgres.roles import CONNECTIONS, HostRole, add_host, remove_host
from repo.postgres.server import Server
from repo.repository import ids
from tests.support.store.postgres_server import PostgresServer
from tests.support.store.stores import made
from worker.client import LifecycleClient
from worker.liveness.locks import DeckyLocks
from worker.queue import Queue
from worker.settings import WorkerSettings

pytestmark = pytest.mark.anyio

ROW = (
    "INSERT INTO decky_lifecycle"
    " (id, decky_name, host_uuid, operation, started_at, updated_at, payload, status)"
)


class Captured:
    """A fleet of two hosts, of which the attacker has `h1`.

    Attributes:
        server: where the store is; the administrator's side of the tests.
        database: the store.
        url: of the attacker.
    """

    def __init__(self, server: PostgresServer, database: str, host: HostRole) -> None:
        self.server = server
        self.database = database
        self.url = server.tcp_url(database, host.role, host.password)
        self.session = psycopg.connect(self.url, autocommit=True)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the attacker gets for a statement."""
        cursor = self.session.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []

    def changed(self, sql: str, *values: Any) -> int:
        """How many rows a statement of the attacker changed."""
        return self.session.execute(sql, values or None).rowcount

    def truth(self, sql: str) -> str:
        """What the administrator sees."""
        return self.server.psql(sql, self.database)


@pytest.fixture
async def captured(server: PostgresServer) -> AsyncIterator[Captured]:
    database = made(server)
    server.psql(
        f"""
        {ROW} SELECT host || number, 'decky-01', nullif(host, 'h0'), 'deploy', now(), now(),
                '{{"secret": 1}}', status
            FROM unnest(ARRAY['h0', 'h1', 'h2']) host,
                (VALUES (1, 'running'), (2, 'pending')) states (number, status);
        INSERT INTO decky_deployed SELECT 'decky-01', host, '{{"secret": 1}}', '[]', host || 0, now()
            FROM unnest(ARRAY['', 'h1', 'h2']) host;
        """,
        database,
    )
    administrator = Server(server.tcp_url(database))
    hosts = {uuid: await add_host(administrator, uuid) for uuid in ("h1", "h2")}
    found = Captured(server, database, hosts["h1"])
    yield found
    found.session.close()
    for uuid in hosts:
        assert await remove_host(administrator, uuid)


async def test_its_own_rows_are_its_to_move(captured: Captured) -> None:
    assert captured.rows("SELECT id FROM decky_lifecycle ORDER BY id") == [("h11",), ("h12",)]
    assert captured.changed(
        "UPDATE decky_lifecycle SET status = 'failed', outcome = 'failed', completed_at = now()"
        " WHERE id = 'h11'"
    )
    assert captured.changed("UPDATE decky_lifecycle SET status = 'running', owner = 'me' WHERE id = 'h12'")
    assert captured.changed(f"{ROW} VALUES ('h13', 'd', 'h1', 'deploy', now(), now(), NULL, 'pending')")
    assert captured.changed(
        "INSERT INTO decky_deployed AS d (decky_name, host, document, services, lifecycle_id, updated_at)"
        " VALUES ('decky-01', 'h1', '{}', '[]', 'h11', now()) ON CONFLICT (decky_name, host)"
        " DO UPDATE SET document = excluded.document, updated_at = excluded.updated_at"
    )
    captured.rows("SELECT decnet_reaper_undeploy('h1', 'decky-01')")
    assert captured.rows("SELECT FROM decky_deployed") == []


@pytest.mark.parametrize("where", ["true", "id = 'h21'", "host_uuid = 'h2'", "host_uuid IS NULL"])
async def test_no_other_host_is_read(captured: Captured, where: str) -> None:
    query = f"SELECT id, payload, error FROM decky_lifecycle WHERE {where}"
    assert {row[0] for row in captured.rows(query)} <= {"h11", "h12"}
    assert captured.rows("SELECT host FROM decky_deployed") == [("h1",)]


async def test_no_other_host_is_read_around_the_policies(captured: Captured) -> None:
    captured.server.psql("ANALYZE", captured.database)
    assert captured.rows("SELECT FROM pg_stats WHERE tablename LIKE 'decky%'") == [], "samples of rows"
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("SELECT * FROM decnet_reaper_host")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("COPY decky_lifecycle TO '/tmp/rows'")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("SELECT pg_read_file('PG_VERSION')")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("SET row_security = off; SELECT * FROM decky_lifecycle")


async def test_a_function_of_the_attacker_sees_no_row_of_another_host(captured: Captured) -> None:
    """A cheap function that tells what it is given is the known way around views; policies come first."""
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows(
            "CREATE FUNCTION public.tell(text) RETURNS bool LANGUAGE sql COST 0.0001 AS 'SELECT true'"
        )
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("CREATE SCHEMA mine")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("CREATE TEMPORARY TABLE decnet_reaper_host (host_uuid text, role_name name)")


@pytest.mark.parametrize("host", ["'h2'", "NULL", "''"])
async def test_no_row_of_another_host_is_made_or_changed(captured: Captured, host: str) -> None:
    before = captured.truth("SELECT * FROM decky_lifecycle ORDER BY id")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.changed(f"{ROW} VALUES ('x', 'd', {host}, 'deploy', now(), now(), NULL, 'pending')")
    with pytest.raises((errors.InsufficientPrivilege, errors.UniqueViolation)):
        captured.changed(
            "INSERT INTO decky_deployed (decky_name, host, document, services, lifecycle_id, updated_at)"
            f" VALUES ('decky-01', coalesce({host}, ''), '{{}}', '[]', 'x', now())"
            " ON CONFLICT (decky_name, host) DO UPDATE SET document = '{}'"
        )
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows(f"SELECT decnet_reaper_undeploy(coalesce({host}, ''), 'decky-01')")
    for where in (f"host_uuid IS NOT DISTINCT FROM {host}", "id = 'h21'"):
        assert captured.changed(f"UPDATE decky_lifecycle SET error = 'x' WHERE {where}") == 0
    with pytest.raises(errors.InsufficientPrivilege):
        captured.changed(f"UPDATE decky_lifecycle SET host_uuid = {host} WHERE id = 'h11'")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.changed("DELETE FROM decky_lifecycle")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.changed("TRUNCATE decky_lifecycle")
    assert captured.truth("SELECT * FROM decky_lifecycle ORDER BY id") == before
    assert captured.truth("SELECT count(*) FROM decky_deployed WHERE document ? 'secret'") == "3"


@pytest.mark.parametrize(
    "step",
    [
        "status = 'pending' WHERE id = 'h11'",
        "status = 'succeeded' WHERE id = 'h11'",
        "completed_at = now() WHERE id = 'h11'",
        "status = 'running' WHERE id = 'h12'",
        "error = 'x' WHERE id = 'h12'",
        "status = 'elsewhere' WHERE id = 'h12'",
    ],
)
async def test_no_illegal_step_of_its_own_rows(captured: Captured, step: str) -> None:
    with pytest.raises(errors.IntegrityError):
        captured.changed(f"UPDATE decky_lifecycle SET {step}")


@pytest.mark.parametrize("column", ["id", "decky_name", "operation", "payload", "attempt", "retry_of"])
async def test_what_was_asked_for_stays(captured: Captured, column: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        captured.changed(f"UPDATE decky_lifecycle SET {column} = {column}")


async def test_a_terminal_row_stays_as_it_is(captured: Captured) -> None:
    captured.changed("UPDATE decky_lifecycle SET status = 'failed', completed_at = now() WHERE id = 'h11'")
    for change in ("error = 'x'", "status = 'running', completed_at = NULL", "outcome = 'lost'"):
        with pytest.raises(errors.CheckViolation, match="nothing leaves a terminal row"):
            captured.changed(f"UPDATE decky_lifecycle SET {change} WHERE id = 'h11'")
    for trick in (
        "SET session_replication_role = replica",
        "ALTER TABLE decky_lifecycle DISABLE TRIGGER ALL",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            captured.rows(trick)
    with pytest.raises(errors.InsufficientPrivilege):
        captured.changed(
            "INSERT INTO decky_lifecycle"
            " (id, decky_name, host_uuid, operation, status, started_at, updated_at, completed_at)"
            " VALUES ('x', 'd', 'h1', 'deploy', 'succeeded', now(), now(), now())"
        )


async def test_no_other_host_is_made_to_look_present(captured: Captured) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("SELECT decnet_reaper_hold_presence('h2')")
    for call in ("pg_advisory_lock", "pg_try_advisory_lock_shared", "pg_advisory_lock_shared"):
        with pytest.raises(errors.InsufficientPrivilege):
            captured.rows(f"SELECT {call}(decnet_reaper_lock_key('host', 'h2'))")
        with pytest.raises(errors.InsufficientPrivilege):
            captured.rows(f"SELECT {call}(1, 2)")
    with pytest.raises(StoreUnusable, match="this role belongs to another host"):
        await Presence(Server(captured.url), "h2").open()
    observer = Observer(Server(captured.server.tcp_url(captured.database)), 30, longest_gap=10)
    own = Presence(Server(captured.url), "h1")
    await own.open()
    assert {host: seen.present for host, seen in (await observer.look()).items()} == {"h1": True, "h2": False}
    await own.close()
    await observer.close()


async def test_no_other_host_is_made_to_look_lost(captured: Captured) -> None:
    with captured.server.connection(captured.database) as other:
        assert captured.rows("SELECT pid FROM pg_stat_activity WHERE pid = %s", other.info.backend_pid)
        for call in ("pg_terminate_backend", "pg_cancel_backend"):
            with pytest.raises(errors.InsufficientPrivilege):
                captured.rows(f"SELECT {call}(%s)", other.info.backend_pid)
    with pytest.raises(errors.InsufficientPrivilege):
        captured.changed("UPDATE decnet_reaper_host SET lost_at = now()")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("SELECT * FROM decnet_reaper_host FOR UPDATE")
    with pytest.raises(StoreUnusable, match="a host's role may not say that of a host"):
        await lose_host(Server(captured.url), "h2")
    for administrate in (add_host, remove_host):
        with pytest.raises(StoreUnusable):
            await administrate(Server(captured.url), "h2")


@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE", "ROW EXCLUSIVE"])
@pytest.mark.parametrize("table", ["decky_lifecycle", "decky_deployed", "decnet_reaper_host"])
async def test_nobody_is_stopped_by_a_table_lock(captured: Captured, table: str, mode: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege), captured.session.transaction():
        captured.rows(f"LOCK TABLE {table} IN {mode} MODE")


@pytest.mark.parametrize(
    "names",
    ["'{}', ARRAY['h2 decky-01', ' decky-01']", "ARRAY[NULL], ARRAY['h2 decky-01']", "NULL, ARRAY['d']"],
)
async def test_no_decky_of_others_is_locked(captured: Captured, names: str) -> None:
    with suppress(errors.InsufficientPrivilege), captured.session.transaction():
        captured.rows(f"SELECT decnet_reaper_lock_deckies({names})")
        assert captured.truth("SELECT count(*) FROM decnet_reaper_held_lock") == "0"


async def test_no_id_of_its_takes_the_others_to_the_horizon(captured: Captured) -> None:
    far = f"{int(ids.horizon(), 16) - 1:08x}-0000-7000-8000-000000000000"
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        captured.changed(f"{ROW} VALUES (%s, 'd', 'h1', 'deploy', now(), now(), NULL, 'pending')", far)


@pytest.mark.parametrize("retry_id", ["h11", "h21", "nowhere"])
async def test_a_retry_that_is_none_is_not_waited_for(captured: Captured, retry_id: str) -> None:
    """It names itself, another host's row, or none."""
    captured.changed(
        "UPDATE decky_lifecycle SET status = 'failed', completed_at = now(), retry_id = %s WHERE id = 'h11'",
        retry_id,
    )
    settings = WorkerSettings(database=captured.server.tcp_url(captured.database))
    async with LifecycleClient(settings) as master:
        assert (await master.wait("h11", timeout=60, follow=True))["id"] == "h11"


async def test_other_hosts_go_on_while_it_keeps_everything_locked_that_it_can(captured: Captured) -> None:
    with captured.session.transaction():
        captured.rows("SELECT FROM decky_lifecycle FOR UPDATE")
        captured.rows("SELECT FROM decky_deployed FOR UPDATE")
        captured.rows("SELECT decnet_reaper_hold_presence('h1')")
        captured.rows("SELECT decnet_reaper_lock_deckies(ARRAY['h1'], ARRAY['decky-01'])")
        with pytest.raises(errors.InsufficientPrivilege), captured.session.transaction():
            captured.rows("SELECT decnet_reaper_lock_deckies(ARRAY['h1', 'h2'], ARRAY['d', 'decky-01'])")
        captured.truth(
            "SET lock_timeout = '5s'; SELECT decnet_reaper_lock_deckies(ARRAY['h2'], ARRAY['decky-01']);"
            "UPDATE decky_lifecycle SET status = 'failed', completed_at = now() WHERE host_uuid = 'h2'"
        )
    assert captured.truth("SELECT count(*) FROM decky_lifecycle WHERE status = 'failed'") == "2"


async def test_the_rows_of_other_lost_hosts_are_closed_while_it_keeps_its_own_locked(
    captured: Captured, tmp_path: Path
) -> None:
    """More rows than a sweep closes side by side, all before the other host's."""
    many = f"{ROW} SELECT 'h1-' || n, 'd' || n, 'h1', 'deploy', now(), now(), NULL, 'running'"
    captured.changed(f"{many} FROM generate_series(1, 300) n")
    url = captured.server.tcp_url(captured.database)
    for host in ("h1", "h2"):
        await lose_host(Server(url), host)
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run", database=url)
    locks, queue = DeckyLocks.of(settings), Queue(settings.redis)
    async with get_repository(url=url) as repository, aclosing(Hosts(settings)) as hosts:
        sweeper = Sweeper(repository, queue, locks, settings, hosts=hosts)
        with captured.session.transaction():
            captured.rows("SELECT FROM decky_lifecycle FOR UPDATE")
            await sweeper.run("command", Scope(with_queue=False))
            assert captured.truth("SELECT outcome FROM decky_lifecycle WHERE id = 'h21'") == "lost"
        held = "SELECT count(*) FROM decky_lifecycle WHERE host_uuid = 'h1' AND status = 'running'"
        assert captured.truth(held) == "301"
        await sweeper.run("command", Scope(with_queue=False))
        assert captured.truth(held) == "0"
    await queue.close()


async def test_its_sessions_are_counted(captured: Captured) -> None:
    sessions = [psycopg.connect(captured.url) for _ in range(CONNECTIONS - 1)]
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        psycopg.connect(captured.url)
    for session in sessions:
        session.close()


async def test_no_secret_of_the_administrator_is_read(captured: Captured) -> None:
    for table in ("pg_authid", "pg_shadow"):
        with pytest.raises(errors.InsufficientPrivilege):
            captured.rows(f"SELECT * FROM {table}")
    started = threading.Event()

    def administrate() -> None:
        with captured.server.connection(captured.database) as administrator:
            started.set()
            administrator.execute("SELECT 'a secret', pg_sleep(0.5)")

    thread = threading.Thread(target=administrate)
    thread.start()
    started.wait(60)
    while thread.is_alive():
        seen = captured.rows("SELECT query FROM pg_stat_activity WHERE query LIKE '%a secret%'")
        assert [query for (query,) in seen if "pg_stat_activity" not in query] == []
        await asyncio.sleep(0.05)
    for role in ("postgres", "decnet_host_h2", "pg_monitor"):
        with pytest.raises(errors.InsufficientPrivilege):
            captured.rows(f"SET ROLE {role}")
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("ALTER ROLE decnet_host_h1 SUPERUSER")


async def test_its_own_password_is_in_no_log_of_the_server(
    captured: Captured, server: PostgresServer
) -> None:
    server.psql("ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf()")
    try:
        made = await add_host(Server(server.tcp_url(captured.database)), "h3")
        assert "decnet_host_h3" in server.log
        assert made.password not in server.log
        assert await remove_host(Server(server.tcp_url(captured.database)), "h3")
    finally:
        server.psql("ALTER SYSTEM RESET log_statement; SELECT pg_reload_conf()")


@pytest.mark.parametrize("name", ["02zzzzzz-zzzz-7", "02zzzzzz-zzzz-7zzz-8zzz-zzzzzzzzzzzz"])
async def test_no_id_of_its_keeps_the_master_from_accepting(captured: Captured, name: str) -> None:
    captured.changed(f"{ROW} VALUES (%s, 'd', 'h1', 'deploy', now(), now(), NULL, 'pending')", name)
    async with get_repository(url=captured.server.tcp_url(captured.database)) as master:
        for host in (None, "h2"):
            await master.submit_lifecycle({"decky_name": "d", "operation": "deploy", "host_uuid": host})


@pytest.mark.parametrize("column", ["started_at", "updated_at", "claimed_at", "cancel_requested_at"])
@pytest.mark.parametrize("moment", ["infinity", "-infinity", "10000-01-01"])
async def test_no_time_of_its_is_none(captured: Captured, column: str, moment: str) -> None:
    with pytest.raises(errors.CheckViolation):
        captured.changed(f"UPDATE decky_lifecycle SET {column} = %s", moment)


@pytest.mark.parametrize(
    "write",
    [
        "UPDATE decky_lifecycle SET status = 'failed', completed_at = now(), error = repeat('x', 2001)",
        f"{ROW} SELECT 'h14', 'd', 'h1', 'deploy', now(), now(),"
        " jsonb_build_object('x', repeat('x', 4000000)), 'pending'",
        "UPDATE decky_deployed SET services = (SELECT jsonb_agg('x'::text) FROM generate_series(1, 1000000))",
        "UPDATE decky_deployed SET document = jsonb_build_object('x', repeat('x', 4000000))",
    ],
)
async def test_nothing_of_its_fills_the_memory_of_who_looks(captured: Captured, write: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="violates row-level security policy"):
        captured.changed(write)


@pytest.mark.parametrize("payload", ['{"a": 1e5000}', '{"a": ' + "[" * 3_000 + "]" * 3_000 + "}"])
async def test_no_request_of_its_hides_the_rows_of_others(captured: Captured, payload: str) -> None:
    captured.changed(f"{ROW} VALUES ('h13', 'd', 'h1', 'deploy', now(), now(), %s, 'pending')", payload)
    async with get_repository(url=captured.server.tcp_url(captured.database)) as master:
        rows = await master.get_lifecycle_by_ids(["h13", "h21", "h01"])
        assert {"h21", "h01"} <= {row["id"] for row in rows}
        assert "h13" in {row["id"] for row in await master.list_open_lifecycles()}


async def test_no_large_object_fills_the_disk(captured: Captured) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        captured.rows("SELECT lo_create(0)")


async def test_removed_host_is_out_at_once(captured: Captured) -> None:
    administrator = Server(captured.server.tcp_url(captured.database))
    assert await remove_host(administrator, "h1")
    with pytest.raises(psycopg.OperationalError):
        captured.rows("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(captured.url)
    assert captured.truth("SELECT lost_at IS NOT NULL FROM decnet_reaper_host WHERE host_uuid = 'h1'") == "t"
    assert not await remove_host(administrator, "h1")
    with pytest.raises(StoreUnusable, match="there already"):
        await add_host(administrator, "h2")
    await add_host(administrator, "h1")


async def test_removed_host_that_connects_again_and_again_is_out_all_the_same(captured: Captured) -> None:
    held: list[psycopg.Connection] = []

    removed = threading.Event()

    def connect() -> None:
        while not removed.is_set():
            with suppress(psycopg.Error):
                held.append(psycopg.connect(captured.url, autocommit=True))
                held[-1].execute("SELECT decnet_reaper_hold_presence('h1')")

    connecting = asyncio.create_task(asyncio.to_thread(connect))
    while not held:
        await asyncio.sleep(0.01)
    try:
        assert await remove_host(Server(captured.server.tcp_url(captured.database)), "h1")
    finally:
        removed.set()
        await connecting
    assert captured.truth("SELECT decnet_reaper_is_present('h1')") == "f"
    for connection in held:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT decnet_reaper_hold_presence('h1')")
    await add_host(Server(captured.server.tcp_url(captured.database)), "h1")


async def test_who_may_not_make_roles_is_told_so(captured: Captured) -> None:
    captured.server.psql("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'plain'")
    plain = Server(captured.server.tcp_url(captured.database, "plain", "plain"))
    with pytest.raises(StoreUnusable, match="permission denied to create role; name an administrator"):
        await add_host(plain, "h9")
