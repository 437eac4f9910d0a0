"""What an outage of Redis, of any kind, does to those who enqueue and to those who work."""

import asyncio

import pytest

from tests.support.queue.queue_worker import (
    JOBS,
    SECRET,
    body,
    deliveries,
    emptied,
    enqueueing,
    take,
    working,
)
from tests.support.queue.redis_server import RedisServer
from worker.queue import QueueUnavailable

pytestmark = pytest.mark.anyio


async def test_an_outage_leaves_running_jobs_alone_and_is_told_once(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
        worked.gate.clear()
        await queue.enqueue(deliveries("a"))
        await worked.started.get()
        redis_server.kill()
        assert str(redis_server.socket) in await worked.outages.get()
        with pytest.raises(QueueUnavailable, match=str(redis_server.socket)):
            await queue.enqueue(deliveries("b"))
        worked.gate.set()
        assert await worked.ended.get() == "a"
        await redis_server.start()
        assert await worked.recoveries.get() > 0
        await queue.enqueue(deliveries("b"))
        assert await worked.started.get() == "b"
        assert (worked.outages.empty(), worked.recoveries.empty()) == (True, True)


async def test_connections_that_are_closed_are_no_outage(redis_server: RedisServer) -> None:
    async with (
        enqueueing(redis_server.dsn) as queue,
        working(redis_server.dsn) as worked,
        redis_server.client() as client,
    ):
        for name in "abc":
            await redis_server.idle_workers(1)
            await client.client_kill_filter(_type="normal", skipme=True)
            await queue.enqueue(deliveries(name))
            assert await worked.started.get() == name
        assert worked.outages.empty()


async def test_a_worker_waits_for_redis_at_its_start(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with working(redis_server.dsn) as worked:
        await worked.outages.get()
        await redis_server.start()
        await worked.recoveries.get()
        async with enqueueing(redis_server.dsn) as queue:
            await queue.enqueue(deliveries("a"))
        assert await worked.started.get() == "a"


async def test_a_worker_closes_while_redis_is_away(redis_server: RedisServer) -> None:
    async with working(redis_server.dsn) as worked:
        await redis_server.idle_workers(1)
        redis_server.kill()
        await worked.outages.get()


async def test_a_frozen_server_stops_nobody_and_loses_no_job(redis_server: RedisServer) -> None:
    async with (
        enqueueing(redis_server.dsn) as queue,
        working(redis_server.dsn) as worked,
        redis_server.client() as client,
    ):
        await redis_server.idle_workers(1)
        await client.ping()
        redis_server.freeze()
        # The server finds these jobs, and what the worker asked in vain, when it goes on. Whichever comes
        # first, a job that was picked for an answer that nobody waited for must still run.
        jobs = {f"arq:job:{n}": body(args=[f"{n}", "decky-01"]) for n in range(5)}
        late = asyncio.gather(client.mset(jobs), client.zadd(JOBS, {f"{n}": n for n in range(5)}))
        with pytest.raises(QueueUnavailable, match="imeout"):
            await queue.ping()
        assert "imeout" in await worked.outages.get()
        redis_server.thaw()
        await late
        await worked.recoveries.get()
        assert sorted(await take(worked.started, 5)) == [f"{n}" for n in range(5)]
        await emptied(queue)
        assert (worked.outages.empty(), worked.started.empty()) == (True, True)


async def test_a_server_that_becomes_read_only_is_one_outage(redis_server: RedisServer) -> None:
    async with (
        enqueueing(redis_server.dsn) as queue,
        working(redis_server.dsn) as worked,
        redis_server.client() as client,
    ):
        await client.replicaof("127.0.0.1", 1)
        assert "read only" in await worked.outages.get()
        with pytest.raises(QueueUnavailable, match="read only"):
            await queue.enqueue(deliveries("a"))
        with pytest.raises(QueueUnavailable, match="read only"):
            await queue.was_emptied()
        await client.replicaof("NO", "ONE")
        await worked.recoveries.get()
        await queue.enqueue(deliveries("a"))
        assert await worked.started.get() == "a"
        assert worked.outages.empty()


async def test_a_wrong_password_is_an_outage_and_is_not_repeated(redis_server: RedisServer) -> None:
    dsn = f"unix://:{SECRET}@{redis_server.socket}?db=0"
    async with redis_server.client() as client, enqueueing(dsn) as queue:
        await client.config_set("requirepass", "another")
        async with working(dsn) as wrong, working(redis_server.dsn) as without:
            with pytest.raises(QueueUnavailable) as refused:
                await queue.ping()
            reasons = [str(refused.value), await wrong.outages.get(), await without.outages.get()]
            assert ["invalid username-password" in reason for reason in reasons] == [True, True, False]
            assert "Authentication required" in reasons[2]
            assert [reason for reason in reasons if SECRET in reason] == []
            await client.config_set("requirepass", SECRET)
            await wrong.recoveries.get()
            await queue.enqueue(deliveries("a"))
            assert await wrong.started.get() == "a"


async def test_a_queue_key_of_another_type_is_an_outage_until_it_is_gone(redis_server: RedisServer) -> None:
    async with (
        enqueueing(redis_server.dsn) as queue,
        working(redis_server.dsn) as worked,
        redis_server.client() as client,
    ):
        await client.set(JOBS, "a string")
        assert "WRONGTYPE" in await worked.outages.get()
        with pytest.raises(QueueUnavailable, match="WRONGTYPE"):
            await queue.enqueue(deliveries("a"))
        await client.delete(JOBS)
        await worked.recoveries.get()
        await queue.enqueue(deliveries("a"))
        assert await worked.started.get() == "a"
