"""What the live page says of hosts where the store knows who is there."""

import pytest

from repo.postgres.presence import Presence
from repo.postgres.roles import add_host, remove_host
from repo.postgres.server import Server
from tests.reaper.web.conftest import LivePage
from tests.support.fleet import running_fleet
from tests.support.store.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio


async def test_a_host_that_goes_is_shown_as_absent() -> None:
    with PostgresServer() as server:
        url = server.tcp_url(server.database())
        async with running_fleet(database=url) as fleet:
            status, _, said = await fleet.run("hosts")
            assert status == 0, said
            presence = Presence(Server(url), "h1", "decnet-reaper worker 9.9")
            await presence.open()
            page = LivePage(fleet)
            await page.start()
            shown = {"host": "h1", "present": True, "running": 0, "pending": 0, "deckies": 0}
            await page.until("/events", lambda state: shown in state.get("hosts", ()))
            await presence.close()
            gone = shown | {"present": False}
            await page.until("/events", lambda state: gone in state.get("hosts", ()))
            await page.http.aclose()


async def test_the_page_of_a_host_role_shows_the_rows_of_its_host(postgres: PostgresServer) -> None:
    url = postgres.tcp_url(postgres.database())
    async with running_fleet(database=url) as fleet:
        async with fleet.client() as client:
            await client.deploy("decky-01", fleet.document("decky-01"))
            row = await client.deploy("decky-01", fleet.document("decky-01"), host_uuid="h1")
        made = await add_host(Server(url), "h1")
        fleet.set(database=postgres.tcp_url(url.rpartition("/")[2], made.role, made.password))
        page = LivePage(fleet)
        await page.start()
        state = await page.until("/events", lambda state: state.get("hours") is not None)
        assert [each["id"] for each in state["pending"]] == [row]
        assert [each["host"] for each in state["hosts"]] == ["h1"]
        await page.http.aclose()
        await remove_host(Server(url), "h1")
