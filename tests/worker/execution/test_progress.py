"""What is told of running operations, on a real Redis."""

import asyncio

import pytest

from tests.support.queue.queue_worker import HANG_GUARD, enqueueing
from tests.support.queue.redis_server import RedisServer
from worker.execution.progress import Progress
from worker.queue import Queue

pytestmark = pytest.mark.anyio


async def kept(queue: Queue, lifecycle_id: str, line: str) -> None:
    """Wait until this is the line that is kept."""
    async with asyncio.timeout(HANG_GUARD):
        while await queue.lines(None, [lifecycle_id]) != ({lifecycle_id: line} if line else {}):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (
            [" Container a  Waiting", " Container b  Waiting", " Container a  Healthy"],
            " Container b  Waiting",
        ),
        ([" Container a  Waiting", " Container a  Healthy"], " Container a  Healthy"),
        ([" Service a  Building", "#4 RUN make"], "#4 RUN make"),
        (["first", "second"], "second"),
        ([f"{n} Pulling" for n in range(1000)] + ["999 Pulled"], "998 Pulling"),
        (["x", ""], ""),
        (["y" * 501], "y" * 500),
    ],
)
async def test_what_is_not_done_yet_is_told(redis_server: RedisServer, lines: list[str], shown: str) -> None:
    async with enqueueing(redis_server.dsn) as queue:
        progress = Progress(queue, None)
        for line in lines:
            progress.line("a", line)
        await kept(queue, "a", shown)


async def test_what_ends_at_once_is_not_told(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue:
        progress = Progress(queue, None)
        progress.line("short", "begun")
        progress.line("long", "begun")
        progress.end("short")
        await kept(queue, "long", "begun")
        assert await queue.lines(None, ["short"]) == {}


async def test_lines_are_dropped_while_redis_is_away_and_told_again_after(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue:
        progress = Progress(queue, None)
        redis_server.freeze()
        for n in range(1000):
            progress.line("a", f"line {n}")
            await asyncio.sleep(0)
        redis_server.thaw()
        await kept(queue, "a", "line 999")
        redis_server.kill()
        progress.line("a", "nobody hears this")
        await redis_server.start()
        progress.line("b", "back")
        await kept(queue, "b", "back")
