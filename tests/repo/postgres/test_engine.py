"""A PostgreSQL store when its server, its database or its network is not as it should be."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from repo.base import BaseRepository
from repo.errors import (
    InvalidLifecycle,
    SchemaNewer,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnreachable,
    StoreUnusable,
)
from repo.factory import get_repository
from repo.postgres.server import Server
from repo.repository import ids
from tests.support.machine.small_disk import small_disk
from tests.support.network.ports import free_port
from tests.support.store.pgbouncer import PgBouncer
from tests.support.store.postgres_server import ADMIN_PASSWORD, PostgresServer
from tests.support.store.stores import made

pytestmark = pytest.mark.anyio

HANG_GUARD_S = 60.0
DEPLOY = {"decky_name": "decky-01", "operation": "deploy"}


async def opening(url: str, **options: object) -> str:
    """Why a store can't be opened, in one line."""
    with pytest.raises(StoreUnavailable) as refused:
        await get_repository(url=url, **options).initialize()  # type: ignore[arg-type]
    message = str(refused.value)
    assert "\n" not in message
    assert ADMIN_PASSWORD not in message
    return message


async def lifecycle(repository: BaseRepository, decky_name: str = "decky-01") -> str:
    """One attempt from its acceptance to its end."""
    lifecycle_id = await repository.create_lifecycle({"decky_name": decky_name, "operation": "deploy"})
    assert await repository.claim_lifecycle(lifecycle_id, "me")
    assert (await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner="me")).applied
    return lifecycle_id


# ---------------------------------------------------------------- opening


async def test_wrong_password(postgres: PostgresServer) -> None:
    message = await opening(postgres.tcp_url(password="wrong"))  # noqa: S106
    assert "password authentication failed for user" in message
    assert "check the user and the password" in message
    assert "wrong@" not in message


async def test_no_password(postgres: PostgresServer) -> None:
    message = await opening(f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres")
    assert "no password supplied; check the user and the password" in message


async def test_password_by_setting_by_file_and_by_service(
    postgres: PostgresServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"127.0.0.1:{postgres.port}/{database}"
    async with get_repository(url=f"postgresql://postgres@{place}", password=ADMIN_PASSWORD):
        pass
    passwords = tmp_path / "passwords"
    passwords.write_text(f"127.0.0.1:{postgres.port}:*:postgres:{ADMIN_PASSWORD}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    async with get_repository(url=f"postgresql://postgres@{place}"):
        pass
    services = tmp_path / "services"
    services.write_text(f"[fleet]\nhost=127.0.0.1\nport={postgres.port}\ndbname={database}\nuser=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    async with get_repository(url="postgresql://?service=fleet") as repository:
        assert (await repository.check())["path"] == "postgresql:///?service=fleet"


async def test_nobody_listens() -> None:
    message = await opening(f"postgresql://postgres@127.0.0.1:{free_port()}/store")
    assert "Connection refused" in message


async def test_no_such_database(postgres: PostgresServer) -> None:
    message = await opening(postgres.tcp_url("nowhere"))
    assert 'database "nowhere" does not exist; make it with `createdb`' in message


async def test_malformed_url() -> None:
    with pytest.raises(StoreUnusable, match="invalid URI query parameter"):
        get_repository(url="postgresql://h/d?target_session_atrs=any")


@pytest.mark.parametrize("password", ["pa/secret", "secret/@", "/secret"])
def test_a_password_that_ends_the_address_is_not_shown(password: str) -> None:
    with pytest.raises(StoreUnusable, match="write %2F for a /") as refused:
        get_repository(url=f"postgresql://u:{password}@db.example/store")
    assert "secret" not in str(refused.value)


def test_an_address_of_ipv6_is_named_as_libpq_reads_it() -> None:
    server = Server(
        "postgresql://me@[2001:db8::10]:5433,[2001:db8::11],db.example:5434/store?sslmode=require"
    )
    assert server.name == "postgresql://me@[2001:db8::10]:5433,[2001:db8::11],db.example:5434/store"
    again = Server(server.url_of("h1"))
    assert again.machines == ["2001:db8::10", "2001:db8::11", "db.example"]
    assert again.name == server.name.replace("me@", "h1@")


async def test_encryption_that_the_server_has_not(postgres: PostgresServer, database: str) -> None:
    message = await opening(f"{postgres.tcp_url(database)}?sslmode=require")
    assert "server does not support SSL, but SSL was required" in message


async def test_other_encoding(postgres: PostgresServer) -> None:
    postgres.psql("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    assert "the database's encoding is SQL_ASCII; make one with" in await opening(postgres.tcp_url("ascii"))


async def test_database_of_somebody_else(postgres: PostgresServer) -> None:
    database = postgres.database()
    postgres.psql("CREATE TABLE decky_lifecycle (id integer)", database)
    assert "its table decky_lifecycle is somebody else's" in await opening(postgres.tcp_url(database))
    assert postgres.psql("SELECT count(*) FROM pg_class WHERE relname LIKE 'dec%'", database) == "1"


async def test_a_schema_of_its_own_beside_somebody_else(postgres: PostgresServer) -> None:
    database = postgres.database()
    postgres.psql("CREATE TABLE decky_lifecycle (id integer); CREATE SCHEMA decnet_reaper", database)
    url = f"{postgres.tcp_url(database)}?options=-csearch_path%3Ddecnet_reaper"
    async with get_repository(url=url) as repository:
        await lifecycle(repository)


async def test_newer_schema(postgres: PostgresServer, database: str) -> None:
    postgres.psql("UPDATE decnet_reaper_version SET version_num = '9999'", database)
    with pytest.raises(SchemaNewer, match="its schema is 9999, this release knows up to"):
        await get_repository(url=postgres.tcp_url(database)).initialize()


async def test_store_that_shall_not_be_made(postgres: PostgresServer) -> None:
    database = postgres.database()
    assert "no store is there; to have it made" in await opening(postgres.tcp_url(database), create=False)
    assert postgres.psql("SELECT count(*) FROM pg_class WHERE relname LIKE 'dec%'", database) == "0"


async def test_role_that_may_make_no_tables(postgres: PostgresServer) -> None:
    postgres.psql("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    database = postgres.database()
    postgres.psql("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    message = await opening(postgres.tcp_url(database, "guest", "guest"))
    assert "this role may not do that (permission denied for schema public)" in message


async def test_version_that_is_too_old() -> None:
    """A server that says that it is PostgreSQL 12: there is none to install."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        admitted = b"R\0\0\0\x08\0\0\0\0"
        version = b"server_version\x0012.22\0"
        parameter = b"S" + (4 + len(version)).to_bytes(4) + version
        writer.write(admitted + parameter + b"Z\0\0\0\x05I")
        await reader.read(1 << 16)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    message = await opening(
        f"postgresql://postgres@127.0.0.1:{port}/store?sslmode=disable&gssencmode=disable"
    )
    assert "PostgreSQL 12 is too old, upgrade the server to 13 or later" in message
    server.close()


async def test_standby_takes_no_writes() -> None:
    with PostgresServer() as primary:
        database = made(primary)
        with primary.standby() as standby:
            async with get_repository(url=standby.tcp_url(database)) as repository:
                with pytest.raises(StoreUnusable, match=r"takes no writes \(a standby, or read-only\)"):
                    await lifecycle(repository)


async def test_processes_that_open_an_empty_database_at_once(postgres: PostgresServer) -> None:
    url = postgres.tcp_url(postgres.database())
    code = (
        "import asyncio, sys\nfrom repo.factory import get_repository\n"
        "asyncio.run(get_repository(url=sys.argv[1]).initialize())"
    )
    opened = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, url), cwd=Path(__file__).parents[3], stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in opened:
        _, said = await process.communicate()
        assert process.returncode == 0, said


# ---------------------------------------------------------------- going on


async def test_backend_that_was_killed(
    repository: BaseRepository, postgres: PostgresServer, database: str
) -> None:
    for number in range(3):
        await lifecycle(repository)
        assert len(await repository.list_lifecycles()) == number + 1
        postgres.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'decnet-reaper'",
            database,
        )


@asynccontextmanager
async def writers(repository: BaseRepository, count: int = 8) -> AsyncIterator[list[str]]:
    """Callers that write until the block ends; the ids of what the store has acknowledged."""
    acknowledged: list[str] = []
    over = asyncio.Event()

    async def write(name: str) -> None:
        while not over.is_set():
            with suppress(StoreUnavailable):
                acknowledged.append(await lifecycle(repository, name))

    tasks = [asyncio.create_task(write(f"decky-{number}")) for number in range(count)]
    try:
        yield acknowledged
    finally:
        over.set()
        async with asyncio.timeout(HANG_GUARD_S):
            await asyncio.gather(*tasks)


async def grown(acknowledged: list[str], by: int = 30) -> None:
    """Wait until so many more are acknowledged."""
    wanted = len(acknowledged) + by
    async with asyncio.timeout(HANG_GUARD_S):
        while len(acknowledged) < wanted:
            await asyncio.sleep(0.01)


async def succeeded(repository: BaseRepository, acknowledged: list[str]) -> None:
    """No acknowledged row is lost, and none is there twice."""
    rows = await repository.get_lifecycle_by_ids(acknowledged)
    assert len(rows) == len(acknowledged) == len(set(acknowledged))
    assert {row["status"] for row in rows} == {"succeeded"}


@pytest.mark.parametrize("how", ["kill -9", "restart", "immediate"])
async def test_server_that_goes_and_comes_back(how: str) -> None:
    with PostgresServer() as server:
        async with get_repository(url=server.tcp_url(made(server))) as repository:
            async with writers(repository) as acknowledged:
                for _ in range(2):
                    await grown(acknowledged)
                    if how == "kill -9":
                        await asyncio.to_thread(server.kill)
                    else:
                        await asyncio.to_thread(lambda: server.stop(immediate=how == "immediate"))
                    await asyncio.to_thread(server.start)
                await grown(acknowledged)
            await succeeded(repository, acknowledged)


async def test_failover_to_a_standby() -> None:
    synchronous = {"synchronous_standby_names": "*", "wal_receiver_status_interval": "1"}
    with PostgresServer() as primary:
        database = made(primary)
        with primary.standby() as standby:
            primary.set(synchronous)
            places = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            url = f"postgresql://postgres@{places}/{database}?target_session_attrs=read-write"
            async with get_repository(url=url, password=ADMIN_PASSWORD) as repository:
                async with writers(repository) as acknowledged:
                    await grown(acknowledged)
                    await asyncio.to_thread(primary.kill)
                    await asyncio.to_thread(standby.promote)
                    await grown(acknowledged)
                await succeeded(repository, acknowledged)


async def test_session_that_can_not_write_is_not_kept(postgres: PostgresServer, database: str) -> None:
    """It landed on a standby that is none any more, or behind an address that led to one."""
    read_only = f"ALTER DATABASE {database} SET default_transaction_read_only"
    postgres.psql(f"{read_only} = on")
    async with get_repository(url=postgres.tcp_url(database)) as repository:
        postgres.psql(f"{read_only} = off")
        with pytest.raises(StoreUnusable, match="takes no writes"):
            await repository.create_lifecycle(DEPLOY)
        await lifecycle(repository)


async def test_session_that_the_server_ends_for_idling(postgres: PostgresServer, database: str) -> None:
    postgres.psql(f"ALTER DATABASE {database} SET idle_session_timeout = '300ms'")
    of_it = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"
    async with get_repository(url=postgres.tcp_url(database)) as repository:
        for _ in range(2):
            await lifecycle(repository)
            await repository.list_lifecycles()
            while postgres.psql(of_it, "postgres"):
                await asyncio.sleep(0.05)
        await repository.list_lifecycles()


async def test_server_that_stays_away() -> None:
    with PostgresServer() as server:
        url = server.tcp_url(made(server))
        async with get_repository(url=url, busy_timeout=0.5) as repository:
            await lifecycle(repository)
            server.kill()
            for call in (repository.create_lifecycle(DEPLOY), repository.list_lifecycles()):
                with pytest.raises(StoreUnreachable, match=r"Connection refused.*; waited 0.5 s"):
                    await call
            server.start()
            await lifecycle(repository)


async def test_row_that_somebody_holds_is_waited_for_and_keeps_nobody_else_waiting(
    repository: BaseRepository, postgres: PostgresServer, database: str
) -> None:
    held = await repository.create_lifecycle(DEPLOY)
    with postgres.connection(database) as shell, shell.transaction():
        shell.execute("SELECT FROM decky_lifecycle FOR UPDATE")
        claiming = asyncio.create_task(repository.claim_lifecycle(held, "me"))
        for number in range(5):
            await repository.create_lifecycle({**DEPLOY, "decky_name": f"d{number}"})
        assert not claiming.done()
    assert await claiming


async def test_row_that_somebody_holds_for_too_long(postgres: PostgresServer, database: str) -> None:
    async with get_repository(url=postgres.tcp_url(database), busy_timeout=0.5) as repository:
        held = await repository.create_lifecycle(DEPLOY)
        with postgres.connection(database) as shell, shell.transaction():
            shell.execute("SELECT FROM decky_lifecycle FOR UPDATE")
            with pytest.raises(StoreBusy, match="another session holds this row"):
                await repository.claim_lifecycle(held, "me")
        assert await repository.claim_lifecycle(held, "me")


async def test_statement_that_takes_too_long(postgres: PostgresServer, database: str) -> None:
    postgres.psql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON decky_lifecycle FOR EACH ROW"
        " WHEN (NEW.decky_name = 'slow') EXECUTE FUNCTION slow();"
        f"ALTER DATABASE {database} SET statement_timeout = '300ms'",
        database,
    )
    async with get_repository(url=postgres.tcp_url(database)) as repository:
        with pytest.raises(StoreBusy, match="longer than the server's statement_timeout"):
            await repository.create_lifecycle({**DEPLOY, "decky_name": "slow"})
        await lifecycle(repository)


async def test_full_disk(postgres: PostgresServer) -> None:
    with small_disk(postgres.directory / "small", "24m") as space:
        postgres.own(space)
        postgres.psql(f"CREATE TABLESPACE small LOCATION '{space}'")
        postgres.psql("CREATE DATABASE small TABLESPACE small")
        async with get_repository(url=postgres.tcp_url("small")) as repository:
            before = await lifecycle(repository)
            with pytest.raises(StoreFull, match="no space is left on the server"):  # noqa: PT012
                for number in range(2000):
                    payload = {"compose": {"x": os.urandom(100_000).hex()}}
                    await repository.create_lifecycle(
                        {**DEPLOY, "decky_name": f"d{number}", "payload": payload}
                    )
            row = await repository.get_lifecycle(before)
            assert row is not None
            assert row["status"] == "succeeded"
        postgres.psql("DROP DATABASE small WITH (FORCE)")
        postgres.psql("DROP TABLESPACE small")


async def test_what_jsonb_does_not_take_is_refused_before(repository: BaseRepository) -> None:
    for text in ("a\0b", "\ud800"):
        with pytest.raises(InvalidLifecycle, match="payload"):
            await repository.create_lifecycle({**DEPLOY, "payload": {"compose": text}})
    lifecycle_id = await repository.create_lifecycle(DEPLOY)
    await repository.update_lifecycle(lifecycle_id, {"status": "failed", "error": "a\0b\ud800"})
    row = await repository.get_lifecycle(lifecycle_id)
    assert row is not None
    assert row["error"] == "a?b?"


async def test_pooler_in_transaction_mode_passes_work_on(postgres: PostgresServer, database: str) -> None:
    with PgBouncer(postgres, "transaction") as pooler:
        url = pooler.url(database)
        async with get_repository(url=url) as one, get_repository(url=url) as other:
            assert (await one.check())["pooler"] == "yes"
            ids = await asyncio.gather(
                *(
                    lifecycle(store, f"{name}{n}")
                    for n in range(30)
                    for name, store in (("a", one), ("b", other))
                )
            )
            assert len(await one.get_lifecycle_by_ids(ids)) == 60
            wanted = {**DEPLOY, "payload": {"compose": {}}}
            first = await one.submit_lifecycle(wanted)
            assert await other.submit_lifecycle(wanted) == (first[0], False)


async def test_durable_though_the_server_is_set_otherwise(postgres: PostgresServer, database: str) -> None:
    postgres.psql(f"ALTER DATABASE {database} SET synchronous_commit = off")
    async with get_repository(url=postgres.tcp_url(database)) as repository:
        assert (await repository.check())["synchronous_commit"] == "on"


async def test_the_same_wish_from_many_processes_is_one_row(postgres: PostgresServer, database: str) -> None:
    url = postgres.tcp_url(database)
    async with (
        get_repository(url=url) as one,
        get_repository(url=url) as two,
        get_repository(url=url) as three,
    ):
        for number in range(20):
            wanted = {**DEPLOY, "decky_name": f"d{number}", "payload": {"compose": {}}}
            answers = await asyncio.gather(*(store.submit_lifecycle(wanted) for store in (one, two, three)))
            assert len({lifecycle_id for lifecycle_id, _ in answers}) == 1
            assert sum(created for _, created in answers) == 1


async def test_repository_that_was_never_closed(postgres: PostgresServer, database: str) -> None:
    code = (
        "import asyncio, sys\nfrom repo.factory import get_repository\n"
        "kept = get_repository(url=sys.argv[1])\n"
        "async def main():\n"
        "    await kept.initialize()\n"
        "    await kept.create_lifecycle({'decky_name': 'd', 'operation': 'deploy'})\n"
        "    await kept.list_lifecycles()\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always", "-c", code, postgres.tcp_url(database)),
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(HANG_GUARD_S):
        _, said = await process.communicate()
    assert (process.returncode, said) == (0, b"")


async def test_closed_repository_says_so(postgres: PostgresServer, database: str) -> None:
    repository = get_repository(url=postgres.tcp_url(database))
    await repository.initialize()
    await repository.close()
    with pytest.raises(StoreError, match=r"call initialize\(\) first"):
        await repository.create_lifecycle(DEPLOY)
    await repository.initialize()
    await lifecycle(repository)
    await repository.close()


async def test_ids_follow_acceptance_though_a_clock_is_behind(
    repository: BaseRepository, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "_last", 0)  # what this process hands out later follows its own clock again
    ahead = "ffff0000-0000-7000-8000-000000000000".replace("ffff", "0199")
    newest = "02000000-0000-7000-8000-000000000001"
    with psycopg.connect(postgres.tcp_url(database), autocommit=True) as shell:
        for lifecycle_id in (ahead, newest):
            shell.execute(
                "INSERT INTO decky_lifecycle (id, decky_name, operation, started_at, updated_at)"
                " VALUES (%s, 'd', 'deploy', now(), now())",
                (lifecycle_id,),
            )
    made = [await repository.create_lifecycle(DEPLOY) for _ in range(3)]
    assert [newest, *made] == sorted([newest, *made])
