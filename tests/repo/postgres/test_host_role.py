"""The daemons of a host do all their work with the role that was made for it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from repo.base import BaseRepository, Deployed
from repo.errors import StoreUnusable
from repo.factory import get_repository
from repo.postgres.roles import add_host, remove_host
from repo.postgres.server import Server
from tests.support.store.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio

OURS = {"decky_name": "decky-01", "operation": "deploy", "host_uuid": "h1", "payload": {"compose": {}}}


@pytest.fixture
async def url(postgres: PostgresServer, database: str) -> AsyncIterator[str]:
    administrator = Server(postgres.tcp_url(database))
    made = await add_host(administrator, "h1")
    yield postgres.tcp_url(database, made.role, made.password)
    await remove_host(administrator, "h1")


@pytest.fixture
async def host(url: str) -> AsyncIterator[BaseRepository]:
    async with get_repository(url=url) as repository:
        yield repository


async def test_every_call_of_its_daemons(host: BaseRepository, repository: BaseRepository) -> None:
    from_master = await repository.create_lifecycle(OURS)
    assert [row["id"] for row in await host.find_ready_lifecycles("h1", 10)] == [from_master]
    assert await host.record_delivery(from_master, 0)
    claim = await host.claim_lifecycle(from_master, "me")
    assert claim is not None
    ending = await host.end_lifecycle(from_master, outcome="interrupted", owner="me", retry=True)
    assert ending.retry_id is not None
    assert await host.claim_lifecycle(ending.retry_id, "me")
    runs = Deployed({"services": {}}, [])
    assert (await host.end_lifecycle(ending.retry_id, outcome="succeeded", owner="me", deployed=runs)).applied
    assert await repository.get_deployed("decky-01", "h1") == runs
    taken, created = await host.submit_lifecycle({**OURS, "operation": "teardown", "payload": None})
    assert created
    assert await host.claim_lifecycle(taken, "me")
    assert (await host.end_lifecycle(taken, outcome="succeeded", owner="me", undeploy=True)).applied
    assert await repository.get_deployed("decky-01", "h1") is None
    cancelled = await host.retry_lifecycle(ending.retry_id)
    assert await host.request_cancel(cancelled) == "failed"
    stale = await host.create_lifecycle(OURS)
    assert await host.sweep_stale_lifecycle(datetime.now(UTC) + timedelta(hours=1), "x", host_uuid="h1") == 1
    assert [row["id"] for row in await host.get_lifecycle_by_ids([stale])] == [stale]
    assert (await host.identify()).id == (await repository.identify()).id


async def test_rows_of_others_are_none_of_its(host: BaseRepository, repository: BaseRepository) -> None:
    other = await repository.create_lifecycle({**OURS, "host_uuid": "h2"})
    assert await host.get_lifecycle(other) is None
    assert await host.list_open_lifecycles() == []
    assert await host.claim_lifecycle(other, "me") is None
    for host_uuid in ("h2", None):
        with pytest.raises(StoreUnusable, match="this role may not do that"):
            await host.create_lifecycle({**OURS, "host_uuid": host_uuid})


async def test_looking_back_it_sees_its_own(host: BaseRepository, repository: BaseRepository) -> None:
    ours, _ = [await repository.create_lifecycle({**OURS, "host_uuid": each}) for each in ("h1", "h2")]
    for row in await repository.list_open_lifecycles():
        await repository.request_cancel(row["id"])
    assert len(await repository.list_ended()) == 2
    [row] = await host.list_ended()
    assert row["id"] == ours
    assert await host.list_ended(host_uuid="h2") == []
    assert [each["id"] for each in await host.list_around(row, 5)] == [ours]
    [hour] = await host.hours(datetime.now(UTC) - timedelta(hours=1))
    assert hour.outcomes == {"cancelled": 1}


async def test_a_store_in_a_schema_of_its_own(postgres: PostgresServer) -> None:
    database = postgres.database()
    postgres.psql("CREATE SCHEMA decnet_reaper", database)
    within = "?options=-csearch_path%3Ddecnet_reaper"
    url = postgres.tcp_url(database) + within
    async with get_repository(url=url) as repository:
        lifecycle_id = await repository.create_lifecycle(OURS)
        made = await add_host(Server(url), "h1")
        async with get_repository(url=postgres.tcp_url(database, made.role, made.password) + within) as host:
            assert [row["id"] for row in await host.list_open_lifecycles()] == [lifecycle_id]
    await remove_host(Server(url), "h1")


async def test_who_may_make_roles_adds_and_removes_a_host_after_the_first(postgres: PostgresServer) -> None:
    postgres.psql("DROP ROLE IF EXISTS fleet; CREATE ROLE fleet LOGIN CREATEROLE PASSWORD 'fleet'")
    database = postgres.database()
    postgres.psql(f"ALTER DATABASE {database} OWNER TO fleet; ALTER SCHEMA public OWNER TO fleet", database)
    url = postgres.tcp_url(database, "fleet", "fleet")
    async with get_repository(url=url):
        superuser = Server(postgres.tcp_url(database))
        await add_host(superuser, "first")
        await add_host(Server(url), "second")
        assert await remove_host(Server(url), "second")
        assert await remove_host(superuser, "first")


async def test_a_host_that_is_replaced_is_lost_until_its_running_rows_are_closed(
    postgres: PostgresServer, database: str, repository: BaseRepository
) -> None:
    server = Server(postgres.tcp_url(database))
    lost = "SELECT lost_at IS NOT NULL FROM decnet_reaper_host WHERE host_uuid = 'h9'"
    for running in (True, False):
        await add_host(server, "h9")
        if running:
            await repository.claim_lifecycle(
                await repository.create_lifecycle(OURS | {"host_uuid": "h9"}), "me"
            )
        assert await remove_host(server, "h9")
        await add_host(server, "h9")
        assert postgres.psql(lost, database) == ("t" if running else "f")
        assert await remove_host(server, "h9")
        await repository.sweep_stale_lifecycle(datetime.now(UTC) + timedelta(hours=1), "x", host_uuid="h9")


async def test_pruning_is_the_master_s(host: BaseRepository, repository: BaseRepository) -> None:
    lifecycle_id = await host.create_lifecycle(OURS)
    await host.request_cancel(lifecycle_id)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert await host.prune_lifecycles(tomorrow) == 0
    assert await repository.prune_lifecycles(tomorrow) == 1


async def test_hosts_that_are_added_and_removed_at_once(postgres: PostgresServer, database: str) -> None:
    administrator = Server(postgres.tcp_url(database))
    names = [f"at-once-{number}" for number in range(6)]
    made = await asyncio.gather(*(add_host(administrator, name) for name in names))
    assert len({each.password for each in made}) == len(names)
    assert all(await asyncio.gather(*(remove_host(administrator, name) for name in names)))
