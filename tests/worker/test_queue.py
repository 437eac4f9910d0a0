"""The queue against a real server: what is delivered, to whom, how often, and what outages do."""

import asyncio
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import structlog
from arq.connections import ArqRedis

from tests.redis_server import RedisServer
from worker.queue import BeatWorker, Delivery, InvalidDSN, Queue, QueueUnavailable, QueueWorker

pytestmark = pytest.mark.anyio

JOBS = "decnet-reaper:jobs"
HANG_GUARD = 30


class Worked:
    """A worker whose handlers report that they start, then wait to be let go."""

    def __init__(self, dsn: str, *, max_jobs: int = 10, host_uuid: str | None = None) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.outages: asyncio.Queue[str] = asyncio.Queue()
        self.recoveries: asyncio.Queue[float] = asyncio.Queue()
        self.refused: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.worker = QueueWorker(
            dsn,
            self._handle,
            host_uuid=host_uuid,
            max_jobs=max_jobs,
            job_timeout=300,
            on_outage=self.outages.put_nowait,
            on_recovery=self.recoveries.put_nowait,
            on_refused=lambda job_id, reason: self.refused.put_nowait((job_id, reason)),
        )

    async def _handle(self, lifecycle_id: str) -> None:
        self.started.put_nowait(lifecycle_id)
        if lifecycle_id == "crashes":
            raise RuntimeError("a handler's own mistake")
        await self.gate.wait()
        self.ended.put_nowait(lifecycle_id)


@asynccontextmanager
async def working(dsn: str, *, max_jobs: int = 10, host_uuid: str | None = None) -> AsyncIterator[Worked]:
    worked = Worked(dsn, max_jobs=max_jobs, host_uuid=host_uuid)
    run = asyncio.create_task(worked.worker.run())
    async with asyncio.timeout(HANG_GUARD):
        yield worked
    await worked.worker.close()
    await run


@asynccontextmanager
async def ringing(dsn: str) -> AsyncIterator[Queue]:
    queue = Queue(dsn)
    async with asyncio.timeout(HANG_GUARD):
        yield queue
    await queue.close()


def deliveries(*lifecycle_ids: str, number: int = 1, host_uuid: str | None = None) -> list[Delivery]:
    return [Delivery(lifecycle_id, number, host_uuid) for lifecycle_id in lifecycle_ids]


async def take(queue: "asyncio.Queue[str]", count: int) -> list[str]:
    return [await queue.get() for _ in range(count)]


async def emptied(queue: Queue, host_uuid: str | None = None) -> None:
    """Return when the queue is empty."""
    while await queue.depth(host_uuid):
        await asyncio.sleep(0.01)


# --- delivery


async def test_jobs_run_once_each_in_the_order_of_their_ringing(redis_server: RedisServer) -> None:
    ids = [f"{number:04}" for number in range(250)]
    async with ringing(redis_server.dsn) as queue:
        await queue.ring(deliveries(*ids))
        async with working(redis_server.dsn, max_jobs=1) as worked:
            assert await take(worked.started, 250) == ids
            await emptied(queue)
            assert worked.started.empty()


async def test_a_ring_wakes_an_idle_worker(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
        async with asyncio.timeout(30):  # a worker that only looked once a second would need 100 s
            for number in range(100):
                await redis_server.idle_workers(1)
                await queue.ring(deliveries(f"row-{number}"))
                assert await worked.started.get() == f"row-{number}"


async def test_no_more_than_max_jobs_run_and_the_next_starts_when_one_ends(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, working(redis_server.dsn, max_jobs=2) as worked:
        worked.gate.clear()
        await queue.ring(deliveries("a", "b", "c"))
        assert await take(worked.started, 2) == ["a", "b"]
        assert await queue.states(deliveries("a", "b", "c")) == ["picked", "picked", "queued"]
        assert (worked.worker.running, worked.started.empty()) == (2, True)
        worked.gate.set()
        assert await worked.started.get() == "c"


async def test_the_same_delivery_rung_again_and_again_runs_once(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue:
        await queue.ring(deliveries("a") * 2)
        await queue.ring(deliveries("a"))
        async with working(redis_server.dsn) as worked:
            worked.gate.clear()
            assert await worked.started.get() == "a"
            await queue.ring(deliveries("a", "b"))
            assert await worked.started.get() == "b"
            worked.gate.set()
            await emptied(queue)
            assert worked.started.empty()


async def test_several_workers_share_a_queue_and_run_each_job_once(redis_server: RedisServer) -> None:
    ids = [f"{number:03}" for number in range(100)]
    async with (
        ringing(redis_server.dsn) as queue,
        working(redis_server.dsn, max_jobs=3) as one,
        working(redis_server.dsn, max_jobs=3) as other,
    ):
        await redis_server.idle_workers(2)
        await queue.ring(deliveries(*ids))
        await emptied(queue)
        ran = [worked.started.get_nowait() for worked in (one, other) for _ in range(worked.started.qsize())]
    assert sorted(ran) == ids


async def test_rings_at_the_same_time_all_arrive_or_all_say_that_they_did_not(
    redis_server: RedisServer,
) -> None:
    rung = deliveries(*(f"{number:03}" for number in range(200)))
    async with ringing(redis_server.dsn) as queue:
        await asyncio.gather(*(queue.ring([each]) for each in rung))
        assert await queue.states(rung) == ["queued"] * 200
        redis_server.kill()
        errors = await asyncio.gather(*(queue.ring([each]) for each in rung), return_exceptions=True)
        assert [type(error) for error in errors] == [QueueUnavailable] * 200
        await redis_server.start()
        await queue.ring(rung[:1])
        assert await queue.states(rung[:2]) == ["queued", "absent"]


async def test_a_ring_that_is_cancelled_takes_nobody_with_it(redis_server: RedisServer) -> None:
    first, second, third = (deliveries(name) for name in "abc")
    async with ringing(redis_server.dsn) as queue:
        await queue.ping()
        redis_server.freeze()
        sending = asyncio.create_task(queue.ring(first))
        waiting = [asyncio.create_task(queue.ring(each)) for each in (second, third)]
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
    async with ringing(redis_server.dsn) as queue, working(redis_server.dsn, host_uuid="h1") as worked:
        await queue.ring([*here, *there])
        assert await worked.started.get() == "there"
        await emptied(queue, "h1")
        assert await queue.states([*here, *there]) == ["queued", "absent"]
        assert (await queue.depth(), worked.started.empty()) == (1, True)


async def test_a_job_that_arq_itself_enqueued_runs(redis_server: RedisServer) -> None:
    arq = ArqRedis(unix_socket_path=str(redis_server.socket), job_serializer=msgspec.json.encode)
    async with working(redis_server.dsn) as worked:
        await arq.enqueue_job("execute", "from-arq", _queue_name=JOBS)
        assert await worked.started.get() == "from-arq"
    await arq.aclose()


async def test_a_handler_that_raises_is_logged_and_its_job_is_done(redis_server: RedisServer) -> None:
    with structlog.testing.capture_logs() as logged:
        async with ringing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
            await queue.ring(deliveries("crashes", "next"))
            await take(worked.started, 2)
            await emptied(queue)
            assert worked.started.empty()
    assert [(line["event"], line["job_id"]) for line in logged] == [("worker.job_crashed", "crashes.1")]


# --- stopping


async def test_a_stopping_worker_finishes_what_runs_and_leaves_the_rest(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
        worked.gate.clear()
        await queue.ring(deliveries("a"))
        await worked.started.get()
        worked.worker.stop_picking()
        await queue.ring(deliveries("b"))
        assert not await worked.worker.drain(0.01)
        worked.gate.set()
        assert await worked.worker.drain(HANG_GUARD)
        assert await worked.ended.get() == "a"
        await worked.worker.close()
        assert worked.started.empty()
        assert await queue.states(deliveries("a", "b")) == ["absent", "queued"]


async def test_a_cancelled_handler_ends_and_its_job_is_not_run_again(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
        worked.gate.clear()
        await queue.ring(deliveries("a", "b", "c"))
        await take(worked.started, 3)
        assert worked.worker.cancel("a")
        assert not worked.worker.cancel("unknown")
        while await queue.depth() == 3:
            await asyncio.sleep(0.01)
        assert await queue.states(deliveries("a", "b", "c")) == ["absent", "picked", "picked"]
        worked.worker.cancel_all()
        await emptied(queue)
        assert (worked.started.empty(), worked.ended.empty(), worked.worker.running) == (True, True, 0)


async def test_closing_ends_running_handlers_and_clears_the_queue_of_them(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue:
        async with working(redis_server.dsn) as worked:
            worked.gate.clear()
            await queue.ring(deliveries("a"))
            await worked.started.get()
        assert (worked.worker.running, worked.ended.empty()) == (0, True)
        assert await queue.states(deliveries("a")) == ["absent"]


async def test_cancelling_run_closes_the_worker(redis_server: RedisServer) -> None:
    worked = Worked(redis_server.dsn)
    worked.gate.clear()
    run = asyncio.create_task(worked.worker.run())
    async with ringing(redis_server.dsn) as queue:
        await queue.ring(deliveries("a"))
        await worked.started.get()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await queue.states(deliveries("a")) == ["absent"]
    await worked.worker.close()


# --- what is known about a delivery


async def test_losing_everything_shows_once(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, ringing(redis_server.dsn) as other:
        rung = deliveries(*(f"{number:04}" for number in range(1500)))
        assert await queue.was_emptied()
        assert not await queue.was_emptied()
        assert not await other.was_emptied()
        await queue.ring(rung)
        assert await queue.states(rung) == ["queued"] * 1500
        async with redis_server.client() as client:
            await client.flushall()
        assert await queue.states(rung) == ["absent"] * 1500
        assert [await queue.was_emptied() for _ in range(3)] == [True, False, False]
        assert [await other.was_emptied() for _ in range(3)] == [True, False, False]
        await redis_server.restart()
        assert await queue.was_emptied()


async def test_a_job_without_a_body_is_absent(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, redis_server.client() as client:
        await client.zadd(JOBS, {"a.1": 1})
        assert await queue.states(deliveries("a")) == ["absent"]
    assert await Queue(redis_server.dsn).states([]) == []


# --- outages


async def test_an_outage_leaves_running_jobs_alone_and_is_told_once(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, working(redis_server.dsn) as worked:
        worked.gate.clear()
        await queue.ring(deliveries("a"))
        await worked.started.get()
        redis_server.kill()
        assert str(redis_server.socket) in await worked.outages.get()
        with pytest.raises(QueueUnavailable, match=str(redis_server.socket)):
            await queue.ring(deliveries("b"))
        worked.gate.set()
        assert await worked.ended.get() == "a"
        await redis_server.start()
        assert await worked.recoveries.get() > 0
        await queue.ring(deliveries("b"))
        assert await worked.started.get() == "b"
        assert (worked.outages.empty(), worked.recoveries.empty()) == (True, True)


async def test_a_worker_waits_for_redis_at_its_start(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with working(redis_server.dsn) as worked:
        await worked.outages.get()
        await redis_server.start()
        await worked.recoveries.get()
        async with ringing(redis_server.dsn) as queue:
            await queue.ring(deliveries("a"))
        assert await worked.started.get() == "a"


async def test_a_worker_closes_while_redis_is_away(redis_server: RedisServer) -> None:
    async with working(redis_server.dsn) as worked:
        await redis_server.idle_workers(1)
        redis_server.kill()
        await worked.outages.get()


async def test_a_frozen_server_stops_nobody_and_loses_no_job(redis_server: RedisServer) -> None:
    async with (
        ringing(redis_server.dsn) as queue,
        working(redis_server.dsn) as worked,
        redis_server.client() as client,
    ):
        await redis_server.idle_workers(1)
        await client.ping()
        redis_server.freeze()
        # The server finds these jobs, and what the worker asked in vain, when it goes on. Whichever comes
        # first, a job that was picked for an answer that nobody waited for must still run.
        jobs = {f"arq:job:{n}": body(args=[f"{n}"]) for n in range(5)}
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
        ringing(redis_server.dsn) as queue,
        working(redis_server.dsn) as worked,
        redis_server.client() as client,
    ):
        await client.replicaof("127.0.0.1", 1)
        assert "read only" in await worked.outages.get()
        with pytest.raises(QueueUnavailable, match="read only"):
            await queue.ring(deliveries("a"))
        with pytest.raises(QueueUnavailable, match="read only"):
            await queue.was_emptied()
        await client.replicaof("NO", "ONE")
        await worked.recoveries.get()
        await queue.ring(deliveries("a"))
        assert await worked.started.get() == "a"
        assert worked.outages.empty()


async def test_a_wrong_password_is_an_outage_and_is_not_repeated(redis_server: RedisServer) -> None:
    dsn = f"unix://:{SECRET}@{redis_server.socket}?db=0"
    async with redis_server.client() as client, ringing(dsn) as queue:
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
            await queue.ring(deliveries("a"))
            assert await wrong.started.get() == "a"


async def test_a_queue_key_of_another_type_is_an_outage_until_it_is_gone(redis_server: RedisServer) -> None:
    async with (
        ringing(redis_server.dsn) as queue,
        working(redis_server.dsn) as worked,
        redis_server.client() as client,
    ):
        await client.set(JOBS, "a string")
        assert "WRONGTYPE" in await worked.outages.get()
        with pytest.raises(QueueUnavailable, match="WRONGTYPE"):
            await queue.ring(deliveries("a"))
        await client.delete(JOBS)
        await worked.recoveries.get()
        await queue.ring(deliveries("a"))
        assert await worked.started.get() == "a"


# --- what others put in


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def body(function: str = "execute", args: object = ("ok",), kwargs: object = None) -> bytes:
    return msgspec.json.encode({"t": None, "f": function, "a": args, "k": kwargs or {}, "et": 1})


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
        await queue.ring(deliveries("good"))
        async with working(server.dsn, max_jobs=1) as worked:
            shown, reason = await worked.refused.get()
            assert await worked.started.get() == "good"
            await emptied(queue)
            assert (worked.refused.empty(), worked.outages.empty(), "\n" in reason) == (True, True, False)
        assert [key for key in await client.keys() if key.startswith(b"arq:")] == []
    return f"{shown} {reason}"


async def test_keys_of_a_job_that_have_another_type_stop_nothing(redis_server: RedisServer) -> None:
    async with ringing(redis_server.dsn) as queue, redis_server.client() as client:
        await queue.ring(deliveries("a", "b"))
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
        await queue.ring(deliveries("a"))
        await ran.wait()
    await worker.close()
    await run


# --- DSNs

SECRET = "hunter2"  # noqa: S105  # looked for in every message


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "localhost:6379",
        f"http://:{SECRET}@localhost",
        f"redis://:{SECRET}@localhost:port",
        f"redis://:{SECRET}@localhost:0",
        f"redis://:{SECRET}@localhost:99999",
        f"redis://:{SECRET}@localhost/zero",
        f"redis://:{SECRET}@localhost/0/1",
        f"redis://:{SECRET}@localhost?db=x",
        f"redis://:{SECRET}@localhost?db=-1",
        f"redis://:{SECRET}@localhost?socket_timeout=9000",
        f"redis://:x/{SECRET}@localhost",
        f"redis://:x#{SECRET}@localhost",
        f"redis://:x?{SECRET}@localhost",
        f"redis://:{SECRET}@[::1",
        f"redis://:{SECRET}\n@localhost",
        "unix://relative/path.sock",
        "unix://",
        f"unix:///{'x' * 120}",
    ],
)
def test_a_bad_dsn_is_refused_in_one_line_without_its_password(dsn: str) -> None:
    with pytest.raises(InvalidDSN) as refused:
        Queue(dsn)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("dsn", "name"),
    [
        ("redis://", "redis://localhost:6379/0"),
        (f"redis://user:{SECRET}@host:7000/3", "redis://host:7000/3"),
        (f"rediss://:{SECRET}@[::1]?db=2", "rediss://[::1]:6379/2"),
        (f"unix://user:{SECRET}@/run/r%20s.sock?db=1", "unix:///run/r s.sock?db=1"),
        (f"unix:///run/r.sock?password={SECRET}", "unix:///run/r.sock?db=0"),
    ],
)
async def test_a_dsn_is_named_without_its_password(dsn: str, name: str) -> None:
    assert Queue(dsn).name == name


async def test_a_port_where_nobody_listens_is_named_with_the_reason() -> None:
    async with ringing(f"redis://:{SECRET}@127.0.0.1:1/0") as queue:
        with pytest.raises(QueueUnavailable, match=r"^redis://127\.0\.0\.1:1/0: .*refused") as refused:
            await queue.ping()
    assert SECRET not in str(refused.value)


# --- the beat


@asynccontextmanager
async def beating(dsn: str) -> AsyncIterator["asyncio.Queue[str]"]:
    beats: asyncio.Queue[str] = asyncio.Queue()

    async def beat() -> None:
        beats.put_nowait("beat")

    worker = BeatWorker(
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
            await client.zadd("decnet-reaper:beat", {b"\xff": "-inf", b"far": "-inf"})
            await client.set("arq:job:far", b"\x80pickle")
            assert await take(beats, 2) == ["beat", "beat"]
    assert sorted(line["event"] for line in logged) == ["reaper.job_refused"] * 2


async def test_of_several_reapers_one_runs_each_beat(redis_server: RedisServer) -> None:
    async with redis_server.client() as client:
        async with beating(redis_server.dsn) as one, beating(redis_server.dsn) as other:
            while one.qsize() + other.qsize() < 4:
                await asyncio.sleep(0.05)
        ticks = await client.keys("arq:in-progress:*")
    assert one.qsize() + other.qsize() == len(ticks)
