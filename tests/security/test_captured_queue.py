"""What an attacker with a captured host's Redis user can't do, tried over the wire as that user."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, ResponseError

from repo.base import StoreIdentity
from tests.support.queue.queue_worker import SECRET, deliveries, emptied, enqueueing, working
from tests.support.queue.redis_programs import HOST, RedisProgram, SentinelSetup
from worker.queue import Outage, QueueUnavailable, SweepCron
from worker.queue.dsn import parse_dsn
from worker.queue.users import UsersUnsupported, add_user, remove_user

pytestmark = pytest.mark.anyio

STORE = StoreIdentity("a1", "postgresql://db/decnet")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisProgram]:
    server = RedisProgram(tmp_path, password=SECRET)
    await server.ready()
    yield server
    server.kill()


def admin(server: RedisProgram) -> str:
    return f"redis://:{SECRET}@{HOST}:{server.port}/0"


@pytest.fixture
async def captured(server: RedisProgram) -> AsyncIterator[Any]:
    """A connection with h1's credentials, beside the master's and h2's jobs, lines and daemons."""
    user = await add_user(admin(server), "h1")
    theirs = [*deliveries("m"), *deliveries("x", host_uuid="h2"), *deliveries("y", host_uuid="h11")]
    async with enqueueing(admin(server), STORE) as queue:
        await queue.enqueue(theirs)
        for host in (None, "h2"):
            await queue.put_lines(host, {"x": "their last line"})
            await queue.was_emptied(host)
        client = Redis.from_url(user.dsn, decode_responses=True)
        yield client
        await client.aclose()
        assert await queue.states(theirs) == ["queued"] * 3
        for host in (None, "h2"):
            assert await queue.lines(host, ["x"]) == {"x": "their last line"}
            assert not await queue.was_emptied(host)


async def test_a_host_s_daemons_need_no_more_than_its_user_may(server: RedisProgram) -> None:
    user = await add_user(admin(server), "h1")
    assert SECRET not in user.dsn
    sweeps = asyncio.Semaphore(0)

    async def sweep() -> None:
        sweeps.release()

    outage = Outage("redis")
    cron = SweepCron(user.dsn, sweep, interval=1, host_uuid="h1", outage=outage, store=STORE)
    sweeping = asyncio.create_task(cron.run())
    async with (
        enqueueing(admin(server), STORE) as master,
        enqueueing(user.dsn, STORE) as own,
        working(user.dsn, host_uuid="h1", store=STORE) as worked,
    ):
        await own.refuse_others("h1")
        assert await own.check("h1") == "Redis"
        assert await own.was_emptied("h1")
        await master.enqueue(deliveries("a", host_uuid="h1"))
        assert await worked.started.get() == "a"
        await own.put_lines("h1", {"a": "line"})
        assert await master.lines("h1", ["a"]) == await own.lines("h1", ["a"]) == {"a": "line"}
        await own.enqueue(deliveries("b", host_uuid="h1"))
        assert await worked.started.get() == "b"
        await emptied(own, "h1")
        assert await own.states(deliveries("a", host_uuid="h1")) == ["absent"]
        async with asyncio.timeout(30):
            await sweeps.acquire()
            await sweeps.acquire()
        assert worked.outages.empty()
        assert outage.since is None
    await cron.close()
    await sweeping


KEYS = (
    *("decnet-reaper:-:jobs", "decnet-reaper:h2:jobs", "decnet-reaper:h11:jobs", "decnet-reaper:h2:store"),
    *("decnet-reaper:-:line:x", "decnet-reaper:h2:line:x", "arq:job:h2:x.1", "arq:job:-:m.1"),
    *("arq:in-progress:h2:x.1", "arq:result:h2:x.1", "decnet-reaper:h2:wake", "decnet-reaper:h2:marker"),
)


@pytest.mark.parametrize("key", KEYS)
async def test_no_key_of_another_host_is_read_written_or_removed(captured: Any, key: str) -> None:
    for command in (
        *(
            ("GET", key),
            ("MGET", key),
            ("GETRANGE", key, 0, -1),
            ("EXISTS", key),
            ("TYPE", key),
            ("DUMP", key),
        ),
        *(("SET", key, "x"), ("PSETEX", key, 1000, "x"), ("DEL", key), ("UNLINK", key), ("EXPIRE", key, 1)),
        *(("ZADD", key, 1, "x"), ("ZREM", key, "x"), ("ZSCORE", key, "x"), ("ZCARD", key), ("ZPOPMIN", key)),
        *(
            ("ZRANGEBYSCORE", key, "-inf", "+inf"),
            ("LPUSH", key, "x"),
            ("BLPOP", key, 1),
            ("LTRIM", key, 1, 0),
        ),
        *(("RENAME", key, "decnet-reaper:h1:x"), ("COPY", key, "decnet-reaper:h1:x"), ("WATCH", key)),
        *(("EVAL", "return redis.call('GET', KEYS[1])", 1, key), ("RESTORE", key, 0, "x")),
        ("SORT", "decnet-reaper:h1:x", "STORE", key),
    ):
        with pytest.raises(NoPermissionError):
            await captured.execute_command(*command)
    # By a script that doesn't declare what it touches, and in a transaction.
    for call in (f"redis.call('SET', '{key}', 'x')", f"redis.call('DEL', '{key}')"):
        with pytest.raises(ResponseError, match="can't access"):
            await captured.eval(call, 0)
    async with captured.pipeline() as transaction:
        transaction.delete(key)
        with pytest.raises(ResponseError):
            await transaction.execute()


COMMANDS = """
    FLUSHALL | FLUSHDB | SWAPDB 0 1 | KEYS * | SCAN 0 | RANDOMKEY | DBSIZE | MONITOR | INFO | COMMAND COUNT
    CONFIG GET * | CONFIG SET requirepass x | CONFIG REWRITE | ACL LIST | ACL WHOAMI | ACL GETUSER default
    ACL SETUSER decnet_host_h1 ~* | ACL DELUSER default | CLIENT LIST | CLIENT KILL TYPE normal
    CLIENT PAUSE 9
    SHUTDOWN NOSAVE | REPLICAOF no one | PSYNC ? -1 | SAVE | BGREWRITEAOF | FAILOVER | CLUSTER INFO
    MODULE LIST | SCRIPT KILL | SCRIPT FLUSH | FUNCTION LIST | FUNCTION FLUSH | SLOWLOG GET | LATENCY RESET
    PUBLISH x y | SUBSCRIBE __keyspace@0__:* | PSUBSCRIBE * | MEMORY DOCTOR | MIGRATE 127.0.0.1 1 x 0 10
    OBJECT HELP | WAIT 1 10
"""


@pytest.mark.parametrize("command", re.findall(r"[A-Z].*?(?= \||\n)", COMMANDS))
async def test_no_command_that_is_about_the_server_or_its_clients(captured: Any, command: str) -> None:
    with pytest.raises(NoPermissionError):
        await captured.execute_command(*command.split())
    name, *arguments = command.split()
    given = ", ".join(f"'{each}'" for each in (name, *arguments))
    with pytest.raises(ResponseError):
        await captured.eval(f"return redis.call({given})", 0)


async def test_a_worker_with_its_credentials_takes_no_other_host_s_jobs(
    captured: Any, server: RedisProgram
) -> None:
    dsn = f"redis://decnet_host_h1:{captured.connection_pool.connection_kwargs['password']}@{HOST}:{server.port}"
    for host in (None, "h2", "h11"):
        async with working(dsn, host_uuid=host) as worked:
            assert "no permissions to access one of the keys" in await worked.outages.get()
            assert worked.started.empty()
        async with enqueueing(dsn) as queue:
            for call in (queue.enqueue(deliveries("z", host_uuid=host)), queue.was_emptied(host)):
                with pytest.raises(QueueUnavailable):
                    await call


async def test_its_own_queue_is_all_that_it_can_spoil(captured: Any, server: RedisProgram) -> None:
    await captured.set("decnet-reaper:h1:store", "evil another")
    await captured.set("decnet-reaper:h1:line:x", "y" * 1_000_000)
    async with enqueueing(admin(server), STORE) as queue:
        with pytest.raises(QueueUnavailable, match="another"):
            await queue.enqueue(deliveries("a", host_uuid="h1"))
        assert len((await queue.lines("h1", ["x"]))["x"]) <= 4096
        await queue.enqueue(deliveries("b", host_uuid="h2"))
        assert await queue.states(deliveries("b", host_uuid="h2")) == ["queued"]


async def test_removing_the_user_disconnects_it(captured: Any, server: RedisProgram) -> None:
    await captured.ping()
    assert await remove_user(admin(server), "h1")
    with pytest.raises((AuthenticationError, ConnectionError)):
        await captured.ping()
    assert not await remove_user(admin(server), "h1")


async def test_a_new_password_ends_the_sessions_with_the_old(captured: Any, server: RedisProgram) -> None:
    await captured.ping()
    again = await add_user(admin(server), "h1")
    with pytest.raises((AuthenticationError, ConnectionError)):
        await captured.ping()
    async with enqueueing(again.dsn) as queue:
        await queue.ping()


async def test_the_user_outlives_a_restart_of_the_server(server: RedisProgram) -> None:
    user = await add_user(admin(server), "h1")
    assert user.kept
    server.kill()
    server.start()
    await server.ready()
    async with enqueueing(user.dsn) as queue:
        await queue.ping()


async def test_where_everybody_may_do_everything_no_user_is_made(tmp_path: Path) -> None:
    server = RedisProgram(tmp_path)
    await server.ready()
    with pytest.raises(UsersUnsupported, match="with no password: set requirepass"):
        await add_user(f"redis://{HOST}:{server.port}", "h1")
    server.kill()


@pytest.mark.parametrize("host", ["", "*", "h1:x", "h?", "[a-z]", "-"])
async def test_a_pattern_is_no_host(server: RedisProgram, host: str) -> None:
    with pytest.raises(UsersUnsupported, match="is no host id"):
        await add_user(admin(server), host)


async def test_behind_sentinel_each_server_and_each_sentinel_knows_the_user(tmp_path: Path) -> None:
    setup = SentinelSetup(tmp_path, password=SECRET, sentinel_password=SECRET)
    try:
        await setup.ready()
        dsn = f"redis+sentinel://:{SECRET}@{setup.addresses}/{setup.NAME}?sentinel_password={SECRET}"
        user = await add_user(dsn, "h1")
        assert (user.kept, SECRET in user.dsn) == (True, False)
        async with enqueueing(dsn) as master, working(user.dsn, host_uuid="h1") as worked:
            setup.master.kill()
            await setup.promoted(setup.replica)
            while worked.started.empty():
                try:
                    await master.enqueue(deliveries("a", host_uuid="h1"))
                except QueueUnavailable:
                    continue
                await asyncio.sleep(0.1)
        password = parse_dsn(user.dsn).sentinel_options["password"]
        for sentinel in setup.sentinels:
            async with sentinel.client(username=user.name, password=password) as client:
                for command in ("FAILOVER decnet", "REMOVE decnet", "SET decnet quorum 1", "RESET *"):
                    with pytest.raises(NoPermissionError):
                        await client.execute_command("SENTINEL", *command.split())
        setup.master.start()
        await setup.master.ready()
        assert await remove_user(dsn, "h1")
    finally:
        setup.kill()
