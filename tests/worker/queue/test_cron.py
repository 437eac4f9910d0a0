"""The reaper's cron."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog

from tests.support.queue_worker import HANG_GUARD, take
from tests.support.redis_server import RedisServer
from worker.queue import SweepCron

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def beating(dsn: str) -> AsyncIterator["asyncio.Queue[str]"]:
    beats: asyncio.Queue[str] = asyncio.Queue()

    async def beat() -> None:
        beats.put_nowait("beat")

    worker = SweepCron(
        dsn,
        beat,
        interval=1,
        on_outage=lambda _: beats.put_nowait("outage"),
        on_recovery=lambda _: beats.put_nowait("recovery"),
    )
    run = asyncio.create_task(worker.run())
    async with asyncio.timeout(HANG_GUARD):
        yield beats
    await worker.close()
    await run


async def test_beats_come_survive_an_outage_and_rubbish_in_their_queue(redis_server: RedisServer) -> None:
    with structlog.testing.capture_logs() as logged:
        async with beating(redis_server.dsn) as beats, redis_server.client() as client:
            assert await take(beats, 2) == ["beat", "beat"]
            await redis_server.restart()
            assert await take(beats, 3) == ["outage", "recovery", "beat"]
            await client.zadd("decnet-reaper:sweep", {b"\xff": "-inf", b"far": "-inf"})
            await client.set("arq:job:far", b"\x80pickle")
            assert await take(beats, 2) == ["beat", "beat"]
    assert sorted(line["event"] for line in logged) == ["queue.job_refused"] * 2


async def test_of_several_reapers_one_runs_each_beat(redis_server: RedisServer) -> None:
    async with redis_server.client() as client:
        async with beating(redis_server.dsn) as one, beating(redis_server.dsn) as other:
            while one.qsize() + other.qsize() < 4:
                await asyncio.sleep(0.05)
        ticks = await client.keys("arq:in-progress:*")
    assert one.qsize() + other.qsize() == len(ticks)
