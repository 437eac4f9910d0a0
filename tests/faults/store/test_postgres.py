"""A whole installation whose store is on PostgreSQL, and a server that goes and comes back under it."""

import asyncio
import json

import pytest

from repo.factory import get_repository
from tests.support.audit import audit
from tests.support.fleet import Fleet, gated
from tests.support.store.postgres_server import ADMIN_PASSWORD, PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("on_postgres")]


async def test_a_store_is_made_where_that_is_asked_for(fleet: Fleet, server: PostgresServer) -> None:
    url = f"postgresql://postgres@127.0.0.1:{server.port}/{server.database()}"
    fleet.set(database=url, database_password=ADMIN_PASSWORD)
    status, _, err = await fleet.run("list")
    assert (status, "no store is there" in err) == (3, True)
    _, out, _ = await fleet.run("doctor", "--create")
    assert f"ok   store    {url}, PostgreSQL 1" in out
    assert await fleet.run("list", "--json") == (0, "[]\n", "")
    assert ADMIN_PASSWORD not in out + err


async def test_a_killed_worker_s_row_is_closed_and_retried(fleet: Fleet) -> None:
    await fleet.reaper()
    victim = await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        await victim.kill()
        await fleet.worker()
        fleet.gate().touch()
        row = await client.wait(lifecycle_id, timeout=60, follow=True)
        assert (row["status"], row["attempt"]) == ("succeeded", 2)
        await audit(fleet, client)


@pytest.mark.parametrize("how", ["kill -9", "restart"])
async def test_a_server_that_goes_and_comes_back_ends_no_daemon(
    fleet: Fleet, server: PostgresServer, how: str
) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client, "decky-a")
        await asyncio.to_thread(server.kill if how == "kill -9" else server.stop)
        fleet.gate().touch()  # the operation ends while nobody can write that down
        submitted = asyncio.create_task(client.deploy("decky-b", fleet.document("decky-b")))
        server.start()  # not in a thread: it would end with that
        for waited in (lifecycle_id, await submitted):
            row = await client.wait(waited, timeout=60)
            assert (row["status"], row["attempt"]) == ("succeeded", 1)
        for daemon in (worker, reaper):
            assert daemon.process.returncode is None
            assert daemon.garbage == []
            assert ADMIN_PASSWORD not in json.dumps(daemon.lines)
        await audit(fleet, client)
    for daemon in (worker, reaper):
        assert await daemon.stop() == 0


async def test_a_store_is_copied_by_the_command(fleet: Fleet) -> None:
    async with fleet.client() as client:
        for number in range(5):
            await client.deploy(f"decky-{number}", fleet.document(f"decky-{number}"))
    status, out, err = await fleet.run("copy", "--to", str(fleet.root / "copy.db"))
    assert (status, err) == (0, "")
    assert "copied 5 rows" in out
    async with fleet.client() as client, get_repository(url=str(fleet.root / "copy.db")) as copy:
        assert await copy.list_lifecycles() == await client.repository.list_lifecycles()
