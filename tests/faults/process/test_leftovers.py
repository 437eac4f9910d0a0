"""What an operation leaves behind, and what is short when it begins."""

import asyncio
import resource
from collections.abc import Callable

import pytest

from tests.support.audit import audit
from tests.support.fleet import Daemon, Fleet, gated
from tests.support.survivor import surviving_compose
from worker.liveness.lock_directory import find_lock_directory
from worker.liveness.owner import start_ticks

pytestmark = pytest.mark.anyio


async def test_what_a_successful_operation_leaves_is_ended_before_its_row(fleet: Fleet) -> None:
    survivor = surviving_compose(fleet, end="sys.exit(0)")
    worker = await fleet.worker()
    async with fleet.client() as client:
        row = await client.wait(await client.deploy("decky-01", fleet.document("decky-01")), timeout=60)
        assert row["status"] == "succeeded"
        assert start_ticks(await survivor()) is None
        assert (await worker.log("lifecycle.survivors_ended"))["pids"] == [await survivor()]
        again = await client.deploy("decky-01", fleet.document("decky-01", "ssh"))
        assert (await client.wait(again, timeout=60))["status"] == "succeeded"
        await audit(fleet, client)


async def test_no_roll_back_begins_beside_what_it_rolls_back(fleet: Fleet) -> None:
    survivor = surviving_compose(fleet, end="sys.exit(3 if 'ftp' in document else 0)")
    worker = await fleet.worker()
    async with fleet.client() as client:
        await client.wait(await client.deploy("decky-01", fleet.document("decky-01", "ssh")), timeout=60)
        failing = await client.mutate("decky-01", compose=fleet.document("decky-01", "ftp"))
        row = await client.wait(failing, timeout=60)
        assert "the previous services were brought back" in (row["error"] or "")
        assert len(worker.logged("lifecycle.survivors_ended")) == 3
        seen = (fleet.root / "alive").read_text().split()
        assert seen == ["0", "0", "0"], "an `up` began while a survivor of the one before was alive"
        assert start_ticks(await survivor()) is None
        await audit(fleet, client)


async def no_descriptor_left(daemon: Daemon) -> Callable[[], None]:
    """Let a daemon open no file any more; returns what takes that back."""
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    return lambda: resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before) and None


async def test_a_worker_without_descriptors_lets_its_rows_wait(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        give_back = await no_descriptor_left(worker)
        ids = [await client.deploy(name, fleet.document(name)) for name in ("decky-a", "decky-b")]
        await worker.log("lifecycle.postponed")
        rows = await client.repository.get_lifecycle_by_ids(ids)
        assert {row["status"] for row in rows} <= {"pending", "running"}
        give_back()
        await fleet.reaper()
        for lifecycle_id in ids:
            assert (await client.wait(lifecycle_id, timeout=60))["status"] == "succeeded"
        await audit(fleet, client)


async def test_a_reaper_without_descriptors_or_redis_recovers(fleet: Fleet) -> None:
    fleet.set(max_attempts="1")
    reaper, worker = await fleet.reaper(), await fleet.worker()
    async with fleet.client() as client:
        lost = [await gated(fleet, client, name) for name in ("decky-a", "decky-b")]
        await fleet.kill_queue()
        await reaper.log("queue.unreachable")
        give_back = await no_descriptor_left(reaper)
        await worker.kill()
        await reaper.log("lifecycle.not_assessed", count=2)
        give_back()
        for lifecycle_id in lost:
            assert (await client.wait(lifecycle_id, timeout=60))["outcome"] == "swept"
        assert reaper.process.returncode is None
        await fleet.start_queue()
        await audit(fleet, client)


async def test_more_jobs_than_descriptors_are_refused_at_the_start(fleet: Fleet) -> None:
    limited = ("prlimit", "--nofile=256:256", "--")
    process = await asyncio.create_subprocess_exec(
        *(*limited, *fleet.command("worker")),
        env=fleet.environment | {"DECNET_REAPER_MAX_JOBS": "100", "DECNET_REAPER_LOG_FORMAT": "console"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert (
        "max_jobs 100 needs 1664 open files, and the limit is 256: set max_jobs to 12 at most" in err.decode()
    )


async def test_a_lock_file_that_can_not_be_opened_keeps_nobody_else_waiting(fleet: Fleet) -> None:
    fleet.set(max_attempts="1")
    reaper, worker = await fleet.reaper(), await fleet.worker()
    async with fleet.client() as client:
        broken, other = [await gated(fleet, client, name) for name in ("decky-a", "decky-b")]
        lock = find_lock_directory(fleet.settings) / "decky-a.lock"
        lock.unlink()
        lock.mkdir()
        await worker.kill()
        assert (await client.wait(other, timeout=60))["outcome"] == "swept"
        line = await reaper.log("lifecycle.not_assessed", lifecycle_id=broken)
        assert line["reason"].endswith("decky-a.lock can't be opened: Is a directory")
        await fleet.run("sweep")
        assert len(reaper.logged("lifecycle.not_assessed")) == 1
        lock.rmdir()
        assert (await client.wait(broken, timeout=60))["outcome"] == "swept"
        await audit(fleet, client)
