"""A live page over real HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from tests.support.fleet import HANG_GUARD_S, Daemon, Fleet

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105


class LivePage:
    """The daemon and a client of it.

    Attributes:
        daemon: the process.
        url: of the page.
        http: asks it as its own page would.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.daemon: Daemon
        self.url = ""
        self.http: httpx.AsyncClient

    async def start(self, *options: str, listen: str = "127.0.0.1:0", tokens: str = f"ada:{TOKEN}") -> None:
        self.daemon = await self._fleet.start(
            "web", "--listen", listen, *options, DECNET_REAPER_WEB_TOKENS=tokens
        )
        where = (await self.daemon.log("web.started"))["listen"]
        self.url = f"http://{where}"
        self.http = httpx.AsyncClient(base_url=self.url, timeout=HANG_GUARD_S)

    async def states(self, path: str) -> AsyncGenerator[dict[str, Any]]:
        """What the page is told, each time as a whole."""
        known: dict[str, Any] = {}
        rows: dict[str, Any] = {}
        async with self.http.stream("GET", path) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    news = json.loads(line.removeprefix("data: "))
                    rows |= {row["id"]: row for row in news.pop("rows", ())}
                    known |= news
                    lists = ("running", "pending", "ended")
                    yield known | {name: [rows[i] for i in known.get(name, ())] for name in lists}

    async def until(self, path: str, wanted: Any) -> dict[str, Any]:
        """The first state that is as wanted."""
        async with asyncio.timeout(HANG_GUARD_S), aclosing(self.states(path)) as states:
            async for state in states:
                if wanted(state):
                    return state
        raise AssertionError("the stream ended")

    async def act(self, action: str, lifecycle_id: str, **headers: str) -> httpx.Response:
        """What the page's button asks for."""
        given = {"Origin": self.url, "Sec-Fetch-Site": "same-origin", "X-Decnet-Token": TOKEN} | headers
        return await self.http.post(f"/row/{lifecycle_id}/{action}", json={}, headers=given)


@pytest.fixture
async def page(fleet: Fleet) -> AsyncIterator[LivePage]:
    """A page that is not started yet."""
    page = LivePage(fleet)
    yield page
    if page.url:
        await page.http.aclose()
