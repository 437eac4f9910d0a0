"""Whatever others put into Redis: refused once, removed, never run."""

import pickle
from pathlib import Path

import pytest
import structlog

from tests.support.queue.queue_worker import JOBS, body, deliveries, emptied, enqueueing, working
from tests.support.queue.redis_server import RedisServer

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
    "a huge body": body(args=["x" * 1_000_000, "decky-01"]),
    "an unknown function": body("os.system"),
    "no argument": body(args=[]),
    "one argument": body(args=["a"]),
    "three arguments": body(args=["a", "decky-01", "b"]),
    "an argument that is a number": body(args=[1, "decky-01"]),
    "an argument that is an object": body(args=["a", {"a": 1}]),
    "a decky's name that can be none": body(args=["a", "../decky-01"]),
    "a keyword argument": body(kwargs={"lifecycle_id": "a"}),
    "an id that is too long": body(args=["x" * 65, "decky-01"]),
    "an empty id": body(args=["", "decky-01"]),
    "an id with a line break": body(args=["a\nb", "decky-01"]),
    "an id with a zero": body(args=["a\x00b", "decky-01"]),
    "the cron's function": body("-:sweep", args=[]),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_a_job_that_is_not_ours_is_refused_once_and_removed(
    redis_server: RedisServer, garbage: bytes
) -> None:
    await _refused(redis_server, b"bad", garbage)


async def test_a_pickle_is_refused_and_not_run(redis_server: RedisServer, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    await _refused(redis_server, b"bad", pickle.dumps({"f": "deploy", "a": (Trap(sprung),), "k": {}}))
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
    async with enqueueing(server.dsn) as queue, server.client() as client:
        if garbage is not None:
            await client.set(b"arq:job:" + job_id, garbage)
        await client.zadd(JOBS, {job_id: 1})
        await queue.enqueue(deliveries("good"))
        with structlog.testing.capture_logs() as logged:
            async with working(server.dsn, max_jobs=1) as worked:
                assert await worked.started.get() == "good"
                await emptied(queue)
                assert worked.outages.empty()
        assert [key for key in await client.keys() if key.startswith(b"arq:")] == []
    (line,) = logged
    assert line["event"] == "queue.job_refused"
    assert "\n" not in line["reason"]
    return f"{line['job_id']} {line['reason']}"


async def test_keys_of_a_job_that_have_another_type_stop_nothing(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue, redis_server.client() as client:
        await queue.enqueue(deliveries("a", "b"))
        await client.zadd("arq:in-progress:-:a.1", {"x": 1})
        await client.delete("arq:job:-:b.1")
        await client.zadd("arq:job:-:b.1", {"x": 1})
        await client.set("decnet-reaper:-:wake", "no list")
        with structlog.testing.capture_logs() as logged:
            async with working(redis_server.dsn) as worked:
                assert await worked.started.get() == "a"
                await emptied(queue)
                assert worked.outages.empty()
        assert [(line["event"], line["job_id"]) for line in logged] == [("queue.job_refused", "-:b.1")]
