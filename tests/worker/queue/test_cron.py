"""The reapers' cron."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog

from tests.support.queue.queue_worker import HANG_GUARD, take
from tests.support.queue.redis_server import RedisServer
from worker.queue import Outage, SweepCron

pytestmark = pytest.mark.anyio


class Telling(Outage):
    """An outage whose beginning and end come in one line with the sweeps."""

    def __init__(self, news: "asyncio.Queue[str]") -> None:
        super().__init__("redis")
        self._news = news

    def failed(self, use: str, reason: str) -> None:
        if self.since is None:
            self._news.put_nowait("outage")
        super().failed(use, reason)

    def worked(self, use: str) -> None:
        lasted = self.since is not None
        super().worked(use)
        if lasted:
            self._news.put_nowait("recovery")


@asynccontextmanager
async def sweeping(dsn: str, host_uuid: str | None = None) -> AsyncIterator["asyncio.Queue[str]"]:
    news: asyncio.Queue[str] = asyncio.Queue()

    async def sweep() -> None:
        news.put_nowait("sweep")

    worker = SweepCron(dsn, sweep, interval=1, host_uuid=host_uuid, outage=Telling(news))
    run = asyncio.create_task(worker.run())
    async with asyncio.timeout(HANG_GUARD):
        yield news
    await worker.close()
    await run


async def test_sweeps_come_survive_an_outage_and_rubbish_in_their_queue(redis_server: RedisServer) -> None:
    with structlog.testing.capture_logs() as logged:
        async with sweeping(redis_server.dsn) as news, redis_server.client() as client:
            assert await take(news, 2) == ["sweep", "sweep"]
            redis_server.kill()
            assert await take(news, 1) == ["outage"]
            await redis_server.start()
            assert await take(news, 2) == ["recovery", "sweep"]
            await client.zadd("decnet-reaper:-:sweep", {b"\xff": "-inf", b"far": "-inf"})
            await client.set("arq:job:far", b"\x80pickle")
            assert await take(news, 2) == ["sweep", "sweep"]
    outage = ["queue.unreachable", "queue.recovered"]
    assert [line["event"] for line in logged] == [*outage, "queue.job_refused", "queue.job_refused"]


async def test_of_several_reapers_one_runs_each_sweep(redis_server: RedisServer) -> None:
    async with redis_server.client() as client:
        async with sweeping(redis_server.dsn) as one, sweeping(redis_server.dsn) as other:
            while one.qsize() + other.qsize() < 4:
                await asyncio.sleep(0.05)
        ran = await client.keys("arq:in-progress:-:sweep:*")
    assert one.qsize() + other.qsize() == len(ran)


async def test_each_host_has_sweeps_of_its_own(redis_server: RedisServer) -> None:
    async with sweeping(redis_server.dsn) as one, sweeping(redis_server.dsn, "h1") as other:
        assert await take(one, 2) == await take(other, 2) == ["sweep", "sweep"]
