"""Who looks from elsewhere: another session, another host id, another lock directory than before."""

import os
import shutil
import signal

import pytest

from repo.base import Lifecycle
from repo.factory import get_repository
from tests.support.audit import audit
from tests.support.fleet import Fleet, gated, running_fleet, wait_status
from tests.support.store.witness import sqlite_only
from tests.support.survivor import surviving_compose
from worker.client import LifecycleClient
from worker.liveness.lock_directory import find_lock_directory
from worker.liveness.owner import start_ticks

pytestmark = pytest.mark.anyio

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def elsewhere(fleet: Fleet) -> dict[str, str]:
    """The environment of another session: its runtime directory is another one."""
    return {
        "XDG_RUNTIME_DIR": str(fleet.root / "session"),
        "DECNET_REAPER_RUNTIME_DIR": str(fleet.root / "session" / "decnet-reaper"),
        "DECNET_REAPER_REDIS": fleet.settings.redis,
    }


async def test_a_sweep_from_another_session_finds_the_living(fleet: Fleet, elsewhere: dict[str, str]) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        status, out, _ = await fleet.run("sweep", stdin=b"", **elsewhere)
        assert (status, out) == (0, "1 open rows seen, 0 closed\n")
        await fleet.reaper(**elsewhere)
        assert (await client.get(lifecycle_id))["status"] == "running"
        fleet.gate().touch()
        assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        await audit(fleet, client)


@sqlite_only
async def test_a_link_to_the_store_leads_to_the_same_locks(fleet: Fleet) -> None:
    await fleet.worker()
    link = fleet.root / "link.db"
    link.symlink_to(fleet.settings.database)
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        _, out, _ = await fleet.run("sweep", DECNET_REAPER_DATABASE=f"sqlite:///{link}")
        assert out == "1 open rows seen, 0 closed\n"
        assert (await client.get(lifecycle_id))["status"] == "running"


async def test_a_second_up_on_a_store_is_refused(fleet: Fleet, elsewhere: dict[str, str]) -> None:
    await fleet.start("up")
    async with fleet.client() as client:
        await client.wait(await client.deploy("decky-01", fleet.document("decky-01")), timeout=60)
    status, _, err = await fleet.run("up", stdin=b"", **elsewhere)
    assert (status, err.count("\n")) == (3, 1)
    assert f"already up on this store (locks in {find_lock_directory(fleet.settings)})" in err


@pytest.mark.parametrize("daemon", ["worker", "reaper", "up", "sweep"])
async def test_another_host_id_is_refused(fleet: Fleet, daemon: str) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        status, out, err = await fleet.run(
            daemon, DECNET_REAPER_HOST_UUID="h1", DECNET_REAPER_LOG_FORMAT="console"
        )
        assert (status, out) == (3, "")
        assert "belongs to the master (no host id), and this is host h1" in err
        assert (await client.get(lifecycle_id))["status"] == "running"


async def test_two_hosts_share_no_state_directory(fleet: Fleet) -> None:
    await fleet.worker(DECNET_REAPER_HOST_UUID="h1")
    other = {
        "DECNET_REAPER_HOST_UUID": "h2",
        "DECNET_REAPER_DATABASE": str(fleet.root / "other.db"),
        "DECNET_REAPER_LOG_FORMAT": "console",
    }
    async with get_repository(fleet.root / "other.db"):
        pass  # made
    status, _, err = await fleet.run("worker", stdin=b"", **other)
    assert status == 3
    assert f"{fleet.settings.state_dir} belongs to host h1, and this is host h2" in err


@sqlite_only
async def test_a_deploy_for_a_host_that_nobody_serves_says_so() -> None:
    async with running_fleet(pending_ttl="1s") as fleet, fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"), host_uuid="h9")
        await fleet.worker()
        await fleet.reaper()
        row = await client.wait(lifecycle_id, timeout=30)
        assert (row["status"], row["outcome"]) == ("failed", "expired")
        assert row["error"] == "not started within 1s: no worker serves host h9"
        assert row["claimed_at"] is None
        await audit(fleet, client)


@sqlite_only
async def test_rows_of_another_host_are_judged_by_age_alone() -> None:
    async with running_fleet(stale_after="1s") as fleet, fleet.client() as client:
        data = {"decky_name": "decky-01", "operation": "deploy", "host_uuid": "old"}
        lifecycle_id = await client.repository.create_lifecycle(data)
        await client.repository.claim_lifecycle(lifecycle_id, "some/owner")
        await fleet.reaper()
        row = await client.wait(lifecycle_id, timeout=30)
        assert (row["error"], row["outcome"]) == ("not seen for 1s", "swept")


async def ended(fleet: Fleet, lifecycle_id: str, client: LifecycleClient) -> Lifecycle:
    """A row that its worker ended, since it had to end itself, and whose retry waits."""
    row = await client.wait(lifecycle_id, timeout=30)
    assert (row["outcome"], row["error"]) == ("interrupted", "worker stopped during operation")
    assert row["retry_id"] is not None
    return row


async def test_a_lock_directory_that_goes_ends_the_daemons_loudly(fleet: Fleet) -> None:
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        gone = fleet.root / "gone"
        find_lock_directory(fleet.settings).rename(gone)  # in one step: a sweep may be making a lock in it
        shutil.rmtree(gone, ignore_errors=True)
        for daemon in (worker, reaper):
            line = await daemon.log("daemon.failed")
            assert line["exit_status"] == await daemon.process.wait() == 3
            assert "was replaced or removed while it was in use" in line["reason"]
        retry_id = (await ended(fleet, lifecycle_id, client))["retry_id"]
        await fleet.worker()
        await fleet.reaper()
        fleet.gate().touch()
        assert (await client.wait(str(retry_id), timeout=30))["status"] == "succeeded"
        await audit(fleet, client)


async def test_a_new_lock_directory_says_nothing_about_the_rows_of_the_old_one(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        worker.signal(signal.SIGSTOP)  # so that it can't notice
        shutil.rmtree(find_lock_directory(fleet.settings))
        reaper = await fleet.reaper()
        line = await reaper.log("lifecycle.not_assessed", lifecycle_id=lifecycle_id)
        assert line["reason"] == "claimed under another lock, and its worker is alive"
        status, out, _ = await fleet.run("doctor", "--json")
        assert status == 0
        assert f"row {lifecycle_id} of decky-01 was claimed in another lock directory" in out
        await fleet.worker()  # which must not begin beside it
        second = await client.mutate("decky-01", services=[])
        await fleet.run("sweep")
        rows = [await client.get(row_id) for row_id in (lifecycle_id, second)]
        assert [row["status"] for row in rows] == ["running", "pending"]
        worker.signal(signal.SIGCONT)
        await ended(fleet, lifecycle_id, client)
        assert await worker.process.wait() == 3
        fleet.gate().touch()
        assert (await client.wait(second, timeout=30))["status"] == "succeeded"
        assert len(reaper.logged("lifecycle.not_assessed")) == 1
        await audit(fleet, client)


async def test_a_lock_file_that_was_deleted_costs_no_living_row(fleet: Fleet) -> None:
    await fleet.worker()
    reaper = await fleet.reaper()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        (find_lock_directory(fleet.settings) / "decky-01.lock").unlink()
        await fleet.run("sweep")
        assert (await client.get(lifecycle_id))["status"] == "running"
        fleet.gate().touch()
        assert (await client.wait(lifecycle_id, timeout=30))["status"] == "succeeded"
        assert reaper.logged("lifecycle.swept") == []
        await audit(fleet, client)


async def test_what_a_dead_worker_left_under_an_old_lock_is_ended_before_its_row() -> None:
    async with running_fleet(max_attempts="1") as fleet, fleet.client() as client:
        note = surviving_compose(fleet)
        worker = await fleet.worker()
        lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"))
        await wait_status(client, lifecycle_id, "running")
        survivor = await note()
        await worker.kill()
        shutil.rmtree(find_lock_directory(fleet.settings))
        reaper = await fleet.reaper()
        row = await client.wait(lifecycle_id, timeout=30)
        assert row["error"] == "master restarted during operation"
        assert survivor in (await reaper.log("lifecycle.survivors_ended"))["pids"]
        assert start_ticks(survivor) is None
        await audit(fleet, client)


@as_root
@pytest.mark.parametrize("directory", ["run", pytest.param("state", marks=sqlite_only)])
async def test_a_directory_that_somebody_else_made_is_refused(fleet: Fleet, directory: str) -> None:
    os.chown(fleet.root / directory, 12345, 12345)
    status, _, err = await fleet.run("reaper", DECNET_REAPER_LOG_FORMAT="console")
    assert status == 3
    assert f"{fleet.root / directory} belongs to user 12345, who could change what is in it" in err


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
async def test_a_directory_that_others_can_change_is_refused(fleet: Fleet, mode: int) -> None:
    (fleet.root / "run").chmod(mode)
    status, _, err = await fleet.run("reaper", DECNET_REAPER_LOG_FORMAT="console")
    assert status == 3
    assert f"can be changed by other users (mode {mode:04o}): chmod go-w {fleet.root / 'run'}" in err


async def test_a_directory_that_everybody_can_rename_is_refused(fleet: Fleet) -> None:
    open_to_all = fleet.root / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    status, _, err = await fleet.run(
        "reaper", DECNET_REAPER_RUNTIME_DIR=str(open_to_all / "run"), DECNET_REAPER_LOG_FORMAT="console"
    )
    assert status == 3
    assert f"{open_to_all / 'run'} can be renamed by everybody: chmod +t {open_to_all}" in err
