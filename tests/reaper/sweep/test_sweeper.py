"""What a sweep logs, what it counts, and whom it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
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
from repo.base import BaseRepository, Claim
from repo.errors import StoreBusy, StoreUnreachable
from repo.factory import get_repository
from tests.support.queue.queue_worker import enqueueing
from tests.support.queue.redis_server import RedisServer
from tests.support.store.postgres_server import PostgresServer
from tests.support.store.store_locker import locked_by_another
from worker.clock import now
from worker.execution.executor import Executor
from worker.liveness.holders import Hold, end_holder
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner, boot_id, start_ticks
from worker.queue import Queue
from worker.runtimes.process import ProcessRuntime

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


LEAVING = """
import fcntl, os, subprocess, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(os.getpid(), subprocess.Popen(["sleep", "600"], pass_fds=[fd], start_new_session=True, **quiet).pid)
"""


@contextmanager
def survivors(locks: DeckyLocks, *deckies: str) -> Iterator[list[tuple[int, int]]]:
    """For each decky a process that ended, and one that holds the decky's lock because that one took it."""
    left: list[tuple[int, int]] = []
    try:
        for decky in deckies:
            command = [sys.executable, "-c", LEAVING, str(locks.path(decky, None))]
            taker, pid = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
            left.append((taker, pid))
        yield left
    finally:
        for _, pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def lost(repository: BaseRepository, decky_name: str, taker: int) -> None:
    """A row whose worker is dead, closed by another host's reaper."""
    owner = str(Owner("host", boot_id(), taker, 1, "00000000", "0123"))
    lifecycle_id = await repository.create_lifecycle({"decky_name": decky_name, "operation": "deploy"})
    await repository.claim_lifecycle(lifecycle_id, owner)
    await repository.end_lifecycle(lifecycle_id, outcome="lost", owner=owner, error="host lost")


async def test_what_is_left_of_lost_rows_is_ended_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run")
    tried: set[int] = set()

    def once_both_were_tried(hold: Hold) -> bool:
        tried.add(hold.pid)
        return len(tried) == 2 and end_holder(hold)

    monkeypatch.setattr("reaper.sweep.survivors.end_holder", once_both_were_tried)
    async with get_repository(settings.database) as repository:
        sweeps = sweeper(repository, settings)
        with survivors(DeckyLocks.of(settings), "decky-a", "decky-b") as left:
            for decky, (taker, _) in zip(("decky-a", "decky-b"), left, strict=True):
                await lost(repository, decky, taker)
            report = await sweeps.run("start", Scope(with_queue=False))
            assert [start_ticks(pid) for _, pid in left] == [None, None]
        assert report.counts["ended"] == 2


async def test_what_does_not_go_is_told_once_and_holds_up_no_later_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run")
    tried: list[int] = []

    def killed_in_the_kernel(hold: Hold) -> bool:
        tried.append(hold.pid)
        return True

    monkeypatch.setattr("reaper.sweep.survivors.end_holder", killed_in_the_kernel)
    async with get_repository(settings.database) as repository:
        sweeps = sweeper(repository, settings)
        with survivors(DeckyLocks.of(settings), "decky-a") as [(taker, pid)], capture_logs() as lines:
            await lost(repository, "decky-a", taker)
            await sweeps.run("start", Scope(with_queue=False))
            tried.clear()
            await sweeps.run("interval", Scope(with_queue=False))
        assert tried == [pid], "it was waited for a second time"
        assert [line["pids"] for line in lines if line["event"] == "lifecycle.survivors_ended"] == [[pid]]


class Silent:
    """A store that makes a claim, and whose answer to it is lost."""

    def __init__(self, repository: BaseRepository) -> None:
        self._repository = repository

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    async def claim_lifecycle(self, *args: Any, **kwargs: Any) -> Claim | None:
        await self._repository.claim_lifecycle(*args, **kwargs)
        raise StoreUnreachable("whether the claim was made is not known")


async def test_a_row_whose_worker_never_learnt_of_its_claim_is_closed_also_after_a_later_job(
    tmp_path: Path,
) -> None:
    settings = ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run", max_attempts=1)
    locks = DeckyLocks.of(settings)
    given: tuple[Any, Any, Any, Any] = Queue(settings.redis), locks, ProcessRuntime(tmp_path), settings
    async with get_repository(settings.database) as repository:
        data = {"decky_name": "decky-a", "operation": "deploy"}
        claimed, later = [await repository.create_lifecycle(data) for _ in range(2)]
        silent: Any = Silent(repository)
        worker = Owner.mine(locks.directory.id)
        with pytest.raises(StoreUnreachable):
            await Executor(silent, *given, worker).execute(claimed, "decky-a")
        await Executor(repository, *given, worker).execute(later, "decky-a")  # it is refused: not its turn
        await sweeper(repository, settings).run("interval", Scope(with_queue=False))
        rows = await repository.get_lifecycle_by_ids([claimed, later])
        assert [(row["status"], row["outcome"]) for row in rows] == [("failed", "swept"), ("pending", None)]
