"""What the live page says of hosts where the store knows who is there."""

import pytest

from repo.postgres.presence import Presence
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
