"""Whatever others put into Redis: refused once, removed, never run."""

import asyncio
import pickle
from pathlib import Path

import pytest
import structlog

from tests.support.queue_worker import JOBS, body, deliveries, emptied, ringing, working
from tests.support.redis_server import RedisServer
from worker.queue import QueueWorker

pytestmark = pytest.mark.anyio


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


GARBAGE = {
    "garbage bytes": b"\x00\xff\xfe garbage",
    "no utf-8 in JSON": b'{"f": "\xff", "a": [], "et": 1}',
    "an empty body": b"",
    "another shape": b"[1, 2, 3]",
    "a deep nest": b'{"k":' + b"[" * 4000,
    "a huge body": body(args=["x" * 1_000_000]),
    "an unknown function": body("os.system"),
    "no argument": body(args=[]),
    "two arguments": body(args=["a", "b"]),
    "an argument that is a number": body(args=[1]),
    "an argument that is an object": body(args=[{"a": 1}]),
    "a keyword argument": body(kwargs={"lifecycle_id": "a"}),
    "an id that is too long": body(args=["x" * 65]),
    "an empty id": body(args=[""]),
    "an id with a line break": body(args=["a\nb"]),
    "an id with a zero": body(args=["a\x00b"]),
    "the beat's function": body("beat", args=[]),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_a_job_that_is_not_ours_is_refused_once_and_removed(
    redis_server: RedisServer, garbage: bytes
) -> None:
    with structlog.testing.capture_logs() as logged:
        await _refused(redis_server, b"bad", garbage)
    assert logged == []


async def test_a_pickle_is_refused_and_not_run(redis_server: RedisServer, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    await _refused(redis_server, b"bad", pickle.dumps({"f": "execute", "a": (Trap(sprung),), "k": {}}))
    assert not sprung.exists()


@pytest.mark.parametrize("job_id", [b"\xff\xfe", b"x" * 100_000, b"line\nbreak"])
async def test_a_strange_job_id_without_a_body_is_refused_once(
    redis_server: RedisServer, job_id: bytes
) -> None:
    shown = await _refused(redis_server, job_id, None)
    assert len(shown) < 500
    assert shown.isprintable()


async def _refused(server: RedisServer, job_id: bytes, garbage: bytes | None) -> str:
    """Put garbage into a worker's queue between two good jobs; what the worker said of it."""
    async with ringing(server.dsn) as queue, server.client() as client:
        if garbage is not None:
            await client.set(b"arq:job:" + job_id, garbage)
        await client.zadd(JOBS, {job_id: 1})
        await queue.enqueue(deliveries("good"))
        async with working(server.dsn, max_jobs=1) as worked:
            shown, reason = await worked.refused.get()
            assert await worked.started.get() == "good"
            await emptied(queue)
            assert (worked.refused.empty(), worked.outages.empty(), "\n" in reason) == (True, True, False)
        assert [key for key in await client.keys() if key.startswith(b"arq:")] == []
    return f"{shown} {reason}"


async def test_keys_of_a_job_that_have_another_type_stop_nothing(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, redis_server.client() as client:
        await queue.enqueue(deliveries("a", "b"))
        await client.zadd("arq:in-progress:a.1", {"x": 1})
        await client.delete("arq:job:b.1")
        await client.zadd("arq:job:b.1", {"x": 1})
        await client.set("decnet-reaper:wake", "no list")
        async with working(redis_server.dsn) as worked:
            assert await worked.started.get() == "a"
            assert (await worked.refused.get())[0] == "b.1"
            await emptied(queue)
            assert worked.outages.empty()


async def test_a_callback_that_raises_stops_nothing(redis_server: RedisServer) -> None:
    def broken(*_: object) -> None:
        raise OSError("the log is full")

    ran = asyncio.Event()

    async def handler(_: str) -> None:
        ran.set()

    worker = QueueWorker(
        redis_server.dsn, handler, job_timeout=300, on_outage=broken, on_recovery=broken, on_refused=broken
    )
    redis_server.kill()
    run = asyncio.create_task(worker.run())
    await redis_server.start()
    async with ringing(redis_server.dsn) as queue, redis_server.client() as client:
        await client.zadd(JOBS, {"bad": 1})
        await emptied(queue)
        await queue.enqueue(deliveries("a"))
        await ran.wait()
    await worker.close()
    await run
