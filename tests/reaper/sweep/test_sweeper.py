"""What a sweep logs, and what it counts."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from reaper.settings import ReaperSettings
from reaper.sweep.report import Scope
from reaper.sweep.sweeper import Sweeper
from repo.errors import StoreBusy
from repo.factory import get_repository
from tests.support.queue.queue_worker import enqueueing
from tests.support.queue.redis_server import RedisServer
from tests.support.store.store_locker import locked_by_another
from worker.liveness.locks import DeckyLocks
from worker.queue import Queue

pytestmark = pytest.mark.anyio

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
