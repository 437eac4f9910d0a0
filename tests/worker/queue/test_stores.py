"""A queue belongs to one store: another's jobs are left alone, and nothing is enqueued among them."""

import pytest

from repo.base import StoreIdentity
from tests.support.queue.queue_worker import deliveries, enqueueing, working
from tests.support.queue.redis_server import RedisServer
from worker.queue import QueueUnusable

pytestmark = pytest.mark.anyio

OURS = StoreIdentity("a1", "/var/lib/decnet-reaper/decnet-reaper.db")
SAME = StoreIdentity("a1", "/srv/the same, by another path.db")
THEIRS = StoreIdentity("b2", "postgresql://db/decnet")
BOTH = f"this queue belongs to the store {OURS.name} (a1), not to {THEIRS.name} (b2)"


async def test_another_store_s_queue_is_left_alone(redis_server: RedisServer) -> None:
    async with (
        working(redis_server.dsn, store=OURS) as worked,
        enqueueing(redis_server.dsn, OURS) as queue,
        enqueueing(redis_server.dsn, THEIRS) as other,
    ):
        await redis_server.idle_workers(1)
        with pytest.raises(QueueUnusable) as refused:
            await other.enqueue(deliveries("x"))
        assert BOTH in str(refused.value)
        with pytest.raises(QueueUnusable):
            await other.refuse_others()
        async with working(redis_server.dsn, store=THEIRS) as idle:
            assert BOTH in await idle.outages.get()
            await queue.enqueue(deliveries("a"))
            assert await worked.started.get() == "a"
            assert idle.started.empty()
        await queue.refuse_others()
        async with enqueueing(redis_server.dsn, SAME) as moved:
            await moved.enqueue(deliveries("b"))
            assert await worked.started.get() == "b"


async def test_each_host_has_a_store_of_its_own(redis_server: RedisServer) -> None:
    async with (
        working(redis_server.dsn, store=OURS),
        working(redis_server.dsn, store=THEIRS, host_uuid="h1") as there,
        enqueueing(redis_server.dsn, THEIRS) as other,
    ):
        await redis_server.idle_workers(2)
        await other.enqueue(deliveries("a", host_uuid="h1"))
        assert await there.started.get() == "a"


async def test_a_queue_without_daemons_is_free_after_a_minute(redis_server: RedisServer) -> None:
    async with working(redis_server.dsn, store=OURS), redis_server.client() as client:
        await redis_server.idle_workers(1)
        assert 0 < await client.pttl("decnet-reaper:-:store") <= 60_000
    async with redis_server.client() as client, enqueueing(redis_server.dsn, THEIRS) as queue:
        with pytest.raises(QueueUnusable):
            await queue.enqueue(deliveries("a"))
        await client.pexpire("decnet-reaper:-:store", 1)
        async with working(redis_server.dsn, store=THEIRS) as worked:
            await redis_server.idle_workers(1)
            await queue.enqueue(deliveries("a"))
            assert await worked.started.get() == "a"


async def test_whatever_stands_there_is_shown_in_one_line(redis_server: RedisServer) -> None:
    async with redis_server.client() as client, enqueueing(redis_server.dsn, OURS) as queue:
        await client.set("decnet-reaper:-:store", "evil \x1b[2J\n" + "x" * 100_000)
        with pytest.raises(QueueUnusable) as refused:
            await queue.enqueue(deliveries("a"))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 700
