"""From DECNET's own runner to decnet-reaper and back, on one file: docs/how-to/move-in.md."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from repo.factory import get_repository
from tests.support.decnet.store import Decnet, now
from tests.support.fleet import Fleet

pytestmark = pytest.mark.anyio

RESTARTED = "master restarted during operation"


async def test_moving_in_and_out_loses_no_row_and_leaves_none_open(fleet: Fleet) -> None:
    path = fleet.root / "decnet.db"
    decnet = Decnet(path)
    done = decnet.create(decky_name="decky-01", operation="deploy")
    decnet.update(done, status="running")
    decnet.update(done, status="succeeded")
    cut = decnet.create(decky_name="decky-02", operation="deploy", started_at=now() - timedelta(days=1))
    decnet.update(cut, status="running")
    before = decnet.rows()
    decnet.engine.dispose()

    fleet.set(database=str(path))
    worker, reaper = await fleet.worker(), await fleet.reaper()
    await reaper.log("lifecycle.swept", lifecycle_id=cut)
    async with fleet.client() as client:
        row = await client.wait(await client.deploy("decky-01", fleet.document("decky-01", "ssh")), 30)
        assert row["status"] == "succeeded"
        assert (await client.get(cut))["error"] == RESTARTED
        assert await client.repository.list_open_lifecycles() == []
    assert (await worker.stop(), await reaper.stop()) == (0, 0)

    decnet = Decnet(path)
    after = decnet.rows()
    assert {key: after[key] for key in before if key != cut} == {
        key: value for key, value in before.items() if key != cut
    }
    assert after[cut]["started_at"] == before[cut]["started_at"]
    assert after[row["id"]]["started_at"].isoformat() == row["started_at"].removesuffix("+00:00")
    again = decnet.create(decky_name="decky-01", operation="deploy")
    decnet.update(again, status="running")
    decnet.update(again, status="failed", error="boom")
    assert decnet.rows()[again]["error"] == "boom"
    async with get_repository(db_path=path) as repository:
        [found] = await repository.get_lifecycle_by_ids([again])
        assert found["started_at"] == f"{decnet.rows()[again]['started_at'].isoformat()}+00:00"
    decnet.engine.dispose()


@pytest.fixture
async def adopted(tmp_path: Path) -> AsyncIterator[Decnet]:
    Decnet(tmp_path / "decnet.db").engine.dispose()
    async with get_repository(db_path=tmp_path / "decnet.db"):
        pass
    decnet = Decnet(tmp_path / "decnet.db")
    yield decnet
    decnet.engine.dispose()


async def test_what_decnet_does_still_works_on_an_adopted_file(adopted: Decnet) -> None:
    waiting = adopted.create(decky_name="decky-01", operation="mutate", host_uuid="h1")
    running = adopted.create(decky_name="decky-01", operation="deploy")
    adopted.update(running, status="running")
    for lifecycle_id in (waiting, running):
        adopted.update(lifecycle_id, started_at=now() - timedelta(hours=2))
    fresh = adopted.create(decky_name="decky-02", operation="deploy")
    assert adopted.sweep(now() - timedelta(hours=1), RESTARTED) == 2
    rows = adopted.rows()
    assert [rows[key]["status"] for key in (waiting, running, fresh)] == ["failed", "failed", "pending"]
    assert rows[waiting]["completed_at"] is not None
    adopted.update(fresh, status="succeeded", completed_at=now())
    adopted.delete(fresh)
    assert fresh not in adopted.rows()


def _second_running(decnet: Decnet) -> None:
    for _ in range(2):
        decnet.update(decnet.create(decky_name="decky-01", operation="deploy"), status="running")


def _late_end(decnet: Decnet) -> None:
    row = decnet.create(decky_name="decky-01", operation="deploy", status="failed", completed_at=now())
    decnet.update(row, status="succeeded")


def _step_back(decnet: Decnet) -> None:
    decnet.update(decnet.create(decky_name="d", operation="deploy", status="running"), status="pending")


def _unknown_status(decnet: Decnet) -> None:
    decnet.update(decnet.create(decky_name="d", operation="deploy"), status="cancelled")


def _error_without_failure(decnet: Decnet) -> None:
    decnet.update(decnet.create(decky_name="d", operation="deploy"), status="succeeded", error="x")


def _delete_open(decnet: Decnet) -> None:
    decnet.delete(decnet.create(decky_name="d", operation="deploy"))


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (_second_running, "another operation is running on this decky"),
        (_late_end, "nothing leaves a terminal row"),
        (_step_back, "a running row never becomes pending again"),
        (_unknown_status, "status"),
        (_error_without_failure, "error_on_failed_rows"),
        (_delete_open, "only a terminal row may be deleted"),
    ],
)
async def test_an_adopted_file_refuses_what_would_not_be_true(
    adopted: Decnet, attempt: Callable[[Decnet], Any], reason: str
) -> None:
    with pytest.raises(IntegrityError, match=reason):
        attempt(adopted)
