"""The queue against a real server: what is delivered, to whom, how often, and what is known of it."""

import asyncio

import msgspec
import pytest
import structlog
from arq.connections import ArqRedis

from tests.support.queue.queue_worker import (
    HANG_GUARD,
    JOBS,
    Worked,
    deliveries,
    emptied,
    enqueueing,
    take,
    working,
)
from tests.support.queue.redis_server import RedisServer
from worker.queue import Queue, QueueUnavailable

pytestmark = pytest.mark.anyio


async def test_jobs_run_once_each_in_the_order_in_which_they_were_enqueued(redis_server: RedisServer) -> None:
    ids = [f"{number:04}" for number in range(250)]
    async with enqueueing(redis_server.dsn) as queue:
        await queue.enqueue(deliveries(*ids))
        async with working(redis_server.dsn, max_jobs=1) as worked:
            assert await take(worked.started, 250) == ids
            await emptied(queue)
            assert worked.started.empty()


async def test_enqueueing_wakes_an_idle_worker(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
        async with asyncio.timeout(30):  # a worker that only looked once a second would need 100 s
            for number in range(100):
                await redis_server.idle_workers(1)
                await queue.enqueue(deliveries(f"row-{number}"))
                assert await worked.started.get() == f"row-{number}"


async def test_no_more_than_max_jobs_run_and_the_next_starts_when_one_ends(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue, working(redis_server.dsn, max_jobs=2) as worked:
        worked.gate.clear()
        await queue.enqueue(deliveries("a", "b", "c"))
        assert await take(worked.started, 2) == ["a", "b"]
        assert await queue.states(deliveries("a", "b", "c")) == ["picked", "picked", "queued"]
        assert (worked.worker.running, worked.started.empty()) == (2, True)
        worked.gate.set()
        assert await worked.started.get() == "c"


async def test_the_same_delivery_enqueued_again_and_again_runs_once(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue:
        await queue.enqueue(deliveries("a") * 2)
        await queue.enqueue(deliveries("a"))
        async with working(redis_server.dsn) as worked:
            worked.gate.clear()
            assert await worked.started.get() == "a"
            await queue.enqueue(deliveries("a", "b"))
            assert await worked.started.get() == "b"
            worked.gate.set()
            await emptied(queue)
            assert worked.started.empty()


async def test_several_workers_share_a_queue_and_run_each_job_once(redis_server: RedisServer) -> None:
    ids = [f"{number:03}" for number in range(100)]
    async with (
        enqueueing(redis_server.dsn) as queue,
        working(redis_server.dsn, max_jobs=3) as one,
        working(redis_server.dsn, max_jobs=3) as other,
    ):
        await redis_server.idle_workers(2)
        await queue.enqueue(deliveries(*ids))
        await emptied(queue)
        ran = [worked.started.get_nowait() for worked in (one, other) for _ in range(worked.started.qsize())]
    assert sorted(ran) == ids


async def test_calls_at_the_same_time_all_arrive_or_all_say_that_they_did_not(
    redis_server: RedisServer,
) -> None:
    given = deliveries(*(f"{number:03}" for number in range(200)))
    async with enqueueing(redis_server.dsn) as queue:
        await asyncio.gather(*(queue.enqueue([each]) for each in given))
        assert await queue.states(given) == ["queued"] * 200
        redis_server.kill()
        errors = await asyncio.gather(*(queue.enqueue([each]) for each in given), return_exceptions=True)
        assert [type(error) for error in errors] == [QueueUnavailable] * 200
        await redis_server.start()
        await queue.enqueue(given[:1])
        assert await queue.states(given[:2]) == ["queued", "absent"]


async def test_a_call_that_is_cancelled_takes_nobody_with_it(redis_server: RedisServer) -> None:
    first, second, third = (deliveries(name) for name in "abc")
    async with enqueueing(redis_server.dsn) as queue:
        await queue.ping()
        redis_server.freeze()
        sending = asyncio.create_task(queue.enqueue(first))
        waiting = [asyncio.create_task(queue.enqueue(each)) for each in (second, third)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        sending.cancel()
        redis_server.thaw()
        await asyncio.wait([sending, *waiting])
        assert [task.cancelled() for task in (sending, *waiting)] == [True, True, False]
        await waiting[1]
        assert await queue.states(third) == ["queued"]


async def test_a_host_has_a_queue_of_its_own(redis_server: RedisServer) -> None:
    here, there = deliveries("here"), deliveries("there", host_uuid="h1")
    async with enqueueing(redis_server.dsn) as queue, working(redis_server.dsn, host_uuid="h1") as worked:
        await queue.enqueue([*here, *there])
        assert await worked.started.get() == "there"
        await emptied(queue, "h1")
        assert await queue.states([*here, *there]) == ["queued", "absent"]
        assert (await queue.depth(), worked.started.empty()) == (1, True)


async def test_a_job_that_arq_itself_enqueued_runs(redis_server: RedisServer) -> None:
    arq = ArqRedis(unix_socket_path=str(redis_server.socket), job_serializer=msgspec.json.encode)
    async with working(redis_server.dsn) as worked:
        await arq.enqueue_job("mutate", "from-arq", "decky-01", _queue_name=JOBS)
        assert await worked.started.get() == "from-arq"
    await arq.aclose()


async def test_a_handler_that_raises_is_logged_and_its_job_is_done(redis_server: RedisServer) -> None:
    with structlog.testing.capture_logs() as logged:
        async with enqueueing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
            await queue.enqueue(deliveries("crashes", "next"))
            await take(worked.started, 2)
            await emptied(queue)
            assert worked.started.empty()
    assert [(line["event"], line["job_id"]) for line in logged] == [("worker.job_crashed", "-:crashes.1")]


# --- stopping


async def test_a_stopping_worker_finishes_what_runs_and_leaves_the_rest(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
        worked.gate.clear()
        await queue.enqueue(deliveries("a"))
        await worked.started.get()
        worked.worker.stop_picking()
        await queue.enqueue(deliveries("b"))
        assert not await worked.worker.drain(0.01)
        worked.gate.set()
        assert await worked.worker.drain(HANG_GUARD)
        assert await worked.ended.get() == "a"
        await worked.worker.close()
        assert worked.started.empty()
        assert await queue.states(deliveries("a", "b")) == ["absent", "queued"]


async def test_closing_ends_running_handlers_and_clears_the_queue_of_them(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue:
        async with working(redis_server.dsn) as worked:
            worked.gate.clear()
            await queue.enqueue(deliveries("a"))
            await worked.started.get()
        assert (worked.worker.running, worked.ended.empty()) == (0, True)
        assert await queue.states(deliveries("a")) == ["absent"]


async def test_cancelling_run_closes_the_worker(redis_server: RedisServer) -> None:
    worked = Worked(redis_server.dsn)
    worked.gate.clear()
    run = asyncio.create_task(worked.worker.run())
    async with enqueueing(redis_server.dsn) as queue:
        await queue.enqueue(deliveries("a"))
        await worked.started.get()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await queue.states(deliveries("a")) == ["absent"]
    await worked.worker.close()


# --- what is known about a delivery


async def test_losing_everything_shows_once(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue, enqueueing(redis_server.dsn) as other:
        given = deliveries(*(f"{number:04}" for number in range(1500)))
        assert await queue.was_emptied()
        assert not await queue.was_emptied()
        assert not await other.was_emptied()
        await queue.enqueue(given)
        assert await queue.states(given) == ["queued"] * 1500
        async with redis_server.client() as client:
            await client.flushall()
        assert await queue.states(given) == ["absent"] * 1500
        assert [await queue.was_emptied() for _ in range(3)] == [True, False, False]
        assert [await other.was_emptied() for _ in range(3)] == [True, False, False]
        await redis_server.restart()
        assert await queue.was_emptied()


async def test_a_job_without_a_body_is_absent(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue, redis_server.client() as client:
        await client.zadd(JOBS, {"-:a.1": 1})
        assert await queue.states(deliveries("a")) == ["absent"]
    assert await Queue(redis_server.dsn).states([]) == []


async def test_a_call_that_is_cancelled_at_any_moment_ends(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue:
        await queue.ping()  # connected
        cancelled = 0
        for moment in range(60):
            call = asyncio.create_task(queue.ping())
            for _ in range(moment):
                await asyncio.sleep(0)
            if call.cancel():
                cancelled += 1
                with pytest.raises(asyncio.CancelledError):
                    await call
        assert cancelled


async def test_the_newest_line_of_each_operation_is_kept_for_a_while(redis_server: RedisServer) -> None:
    async with enqueueing(redis_server.dsn) as queue:
        await queue.put_lines(None, {"a": "first", "b": "\x1b[2J*"})
        await queue.put_lines(None, {"a": "second"})
        assert await queue.lines(None, ["a", "b", "c"]) == {"a": "second", "b": "\x1b[2J*"}
        assert await queue.lines(None, []) == {}
        redis = ArqRedis(unix_socket_path=str(redis_server.socket))
        assert 0 < await redis.ttl("decnet-reaper:-:line:a") <= 600
        await redis.set("decnet-reaper:-:line:a", b"\xff")
        assert await queue.lines(None, ["a"]) == {"a": "\N{REPLACEMENT CHARACTER}"}
        await redis.aclose()
