"""What a sweep logs, and what it counts."""

import time
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from reaper.daemon import Sweeps
from reaper.settings import ReaperSettings, Seconds
from reaper.sweep.ages import Ages
from reaper.sweep.hosts import Hosts
from reaper.sweep.report import Scope
from reaper.sweep.sweeper import Sweeper
from repo.errors import StoreBusy
from repo.factory import get_repository
from tests.support.queue.queue_worker import enqueueing
from tests.support.queue.redis_server import RedisServer
from tests.support.store.postgres_server import PostgresServer
from tests.support.store.store_locker import locked_by_another
from worker.clock import now
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.queue import Queue

pytestmark = pytest.mark.anyio

OBSERVER_S_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND query LIKE '%decnet_reaper_host%'
"""
DEAD = "elsewhere/an-earlier-boot/1/1/00000000/0123"


def sweeper(repository: object, settings: ReaperSettings) -> Sweeper:
    """A process of its own as far as its notes go: forgotten they are abandoned."""
    locks = DeckyLocks.of(settings)
    return Sweeper(repository, Queue(settings.redis), locks, settings)  # type: ignore[arg-type]


async def test_a_write_that_was_refused_is_not_logged_by_a_later_sweep(tmp_path: Path) -> None:
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run")
    async with get_repository(settings.database, busy_timeout=0.2) as repository:
        for number in range(3):
            data = {"decky_name": f"decky-{number}", "operation": "deploy"}
            await repository.claim_lifecycle(await repository.create_lifecycle(data), DEAD)
        async with locked_by_another(settings.database):
            with pytest.raises(StoreBusy):
                await sweeper(repository, settings).run("command", Scope(with_queue=False))
        with capture_logs() as lines:
            report = await sweeper(repository, settings).run("command", Scope(with_queue=False))
            await sweeper(repository, settings).run("command", Scope(with_queue=False))
        assert report.counts["failed"] == len(report.actions) == 3
        swept = [line["lifecycle_id"] for line in lines if line["event"] == "lifecycle.swept"]
        assert len(swept) == len(set(swept)) == 3


async def test_a_first_sweep_that_failed_is_made_up_for_by_the_next_one(tmp_path: Path) -> None:
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run")
    locks = DeckyLocks.of(settings)
    dead = str(Owner.mine(locks.directory.id)._replace(pid=2**22 + 1))
    async with get_repository(settings.database, busy_timeout=0.2) as repository:

        async def orphan(decky_name: str) -> str:
            data = {"decky_name": decky_name, "operation": "deploy"}
            await repository.claim_lifecycle(lifecycle_id := await repository.create_lifecycle(data), dead)
            return lifecycle_id

        async def error(lifecycle_id: str) -> str | None:
            row = await repository.get_lifecycle(lifecycle_id)
            return row["error"] if row else "no row"

        sweeps = Sweeps(Sweeper(repository, Queue(settings.redis), locks, settings), 3600, print)
        before = await orphan("decky-01")
        async with locked_by_another(settings.database):
            await sweeps.sweep("start")
        assert await error(before) is None
        await sweeps.sweep("death")
        assert await error(before) == "master restarted during operation"
        after = await orphan("decky-02")
        await sweeps.sweep("death")
        assert await error(after) == "worker died during operation"
        by_hand = await orphan("decky-03")
        await sweeper(repository, settings).run("command", Scope(with_queue=False))
        assert await error(by_hand) == "worker died during operation"


@pytest.mark.parametrize("between", ["a sweep of one run", "a sweep without the observer"])
async def test_rows_of_other_hosts_age_by_the_steady_clock_whatever_sweep_comes_between(
    tmp_path: Path, server: PostgresServer, between: str
) -> None:
    settings = ReaperSettings(
        database=server.url(database := server.database()),
        state_dir=tmp_path,
        runtime_dir=tmp_path / "run",
        pending_ttl=Seconds(3600),
    )
    set_ahead = timedelta()
    ages = Ages(lambda: now() + set_ahead, time.monotonic)
    async with get_repository(url=settings.database) as repository, aclosing(Hosts(settings)) as hosts:
        lifecycle_id = await repository.create_lifecycle(
            {"decky_name": "decky-01", "operation": "deploy", "host_uuid": "h2"}
        )
        locks, queue = DeckyLocks.of(settings), Queue(settings.redis)
        sweeps = Sweeper(repository, queue, locks, settings, ages=ages, hosts=hosts)
        everything = Scope(with_queue=False)
        assert (await sweeps.run("backstop", everything)).rows == 1
        set_ahead = timedelta(days=1)
        assert (await sweeps.run("backstop", everything)).rows == 1
        if between == "a sweep of one run":
            await sweeps.run("unit", Scope(with_queue=False, run="0" * 32))
        else:
            server.psql(OBSERVER_S_END, database)
            assert (await sweeps.run("backstop", everything)).rows == 0
        assert (await sweeps.run("backstop", everything)).rows == 1
        row = await repository.get_lifecycle(lifecycle_id)
        assert row is not None
        assert (row["status"], row["error"]) == ("pending", None)


async def test_a_row_that_could_not_be_enqueued_is_enqueued_by_the_next_sweep(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run", redis=redis_server.dsn)
    administrator: Any = Redis(unix_socket_path=str(redis_server.socket))
    async with (
        get_repository(settings.database) as repository,
        administrator,
        enqueueing(redis_server.dsn) as queue,
    ):
        await repository.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
        sweeps = Sweeper(repository, queue, DeckyLocks.of(settings), settings)
        await administrator.execute_command("ACL", "SETUSER", "default", "-psetex")  # its states can be read
        assert (await sweeps.run("interval")).counts["redelivered"] == 0
        await administrator.execute_command("ACL", "SETUSER", "default", "+psetex")
        assert (await sweeps.run("interval")).counts["redelivered"] == 1


async def test_a_dry_run_decides_and_does_nothing(tmp_path: Path) -> None:
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run")
    async with get_repository(settings.database) as repository:
        lifecycle_id = await repository.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
        await repository.claim_lifecycle(lifecycle_id, DEAD)
        report = await sweeper(repository, settings).run("command", Scope(with_queue=False, dry_run=True))
        assert [row["id"] for row, _ in report.actions] == [lifecycle_id]
        row = await repository.get_lifecycle(lifecycle_id)
        assert row is not None
        assert row["status"] == "running"
