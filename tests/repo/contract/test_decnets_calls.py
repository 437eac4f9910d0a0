"""What DECNET relies on: its five calls, and what they are known to do."""

from datetime import UTC, datetime, timedelta

import pytest

from repo.base import BaseRepository

pytestmark = pytest.mark.anyio


async def test_create_gives_a_pending_row_with_an_id(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(
        {"decky_name": "d1", "host_uuid": "host-1", "operation": "deploy"}
    )
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    assert row["id"] == lifecycle_id
    assert row["status"] == "pending"
    assert row["host_uuid"] == "host-1"
    assert row["error"] is None
    assert row["completed_at"] is None


async def test_a_given_id_is_kept(repository: BaseRepository) -> None:
    given = "5b0f3e0e-1111-4222-8333-444455556666"
    assert (
        await repository.create_lifecycle({"id": given, "decky_name": "d1", "operation": "deploy"}) == given
    )
    assert [row["id"] for row in await repository.get_lifecycle_by_ids([given])] == [given]


@pytest.mark.parametrize("through", [["running"], []])
async def test_success_stamps_completed_at(repository: BaseRepository, through: list[str]) -> None:
    lifecycle_id = await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"})
    for status in [*through, "succeeded"]:
        await repository.update_lifecycle(lifecycle_id, {"status": status})
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    assert row["status"] == "succeeded"
    assert datetime.fromisoformat(row["completed_at"] or "") == datetime.fromisoformat(row["updated_at"])
    assert (row["completed_at"] or "") >= row["started_at"]


async def test_failure_carries_its_error(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"})
    await repository.update_lifecycle(lifecycle_id, {"status": "failed", "error": "compose up failed"})
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    assert (row["status"], row["error"]) == ("failed", "compose up failed")
    assert row["completed_at"] is not None


async def test_completed_at_is_kept_where_given(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"})
    when = datetime(2026, 5, 4, 10, 11, 12, tzinfo=UTC)
    await repository.update_lifecycle(lifecycle_id, {"status": "succeeded", "completed_at": when})
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    assert datetime.fromisoformat(row["completed_at"] or "") == when


async def test_no_ids_give_nothing_and_unknown_ones_are_omitted(repository: BaseRepository) -> None:
    assert await repository.get_lifecycle_by_ids([]) == []
    known = await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"})
    rows = await repository.get_lifecycle_by_ids([known, "no-such-id", "\0", "\ud800"])
    assert [row["id"] for row in rows] == [known]
    for unknown in ("no-such-id", "\0", "\ud800"):
        assert await repository.get_lifecycle(unknown) is None


async def test_who_only_looks_leaves_the_documents_out(repository: BaseRepository) -> None:
    wish = {"decky_name": "d1", "operation": "deploy", "payload": {"compose": {"services": {}}}}
    lifecycle_id = await repository.create_lifecycle(wish)
    (whole,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id], payload=False)
    assert whole == {**row, "payload": wish["payload"]}
    assert "payload" not in row


async def test_rows_come_oldest_first(repository: BaseRepository) -> None:
    now = datetime.now(UTC)
    ids = [
        await repository.create_lifecycle(
            {"decky_name": "d1", "operation": "deploy", "started_at": now - timedelta(seconds=age)}
        )
        for age in (5, 50, 0)
    ]
    rows = await repository.get_lifecycle_by_ids(ids)
    assert [row["id"] for row in rows] == [ids[1], ids[0], ids[2]]


@pytest.mark.parametrize("status", ["pending", "running"])
async def test_open_rows_are_found(repository: BaseRepository, status: str) -> None:
    lifecycle_id = await repository.create_lifecycle(
        {"decky_name": "d1", "operation": "deploy", "host_uuid": "host-1"}
    )
    if status == "running":
        await repository.update_lifecycle(lifecycle_id, {"status": "running"})
    for host in (None, "host-1"):
        row = await repository.find_open_lifecycle("d1", "deploy", host)
        assert row is not None
        assert row["id"] == lifecycle_id
    assert await repository.find_open_lifecycle("d1", "deploy", "host-2") is None
    assert await repository.find_open_lifecycle("d1", "mutate") is None
    assert await repository.find_open_lifecycle("d2", "deploy") is None
    await repository.update_lifecycle(lifecycle_id, {"status": "failed"})
    assert await repository.find_open_lifecycle("d1", "deploy") is None


async def test_the_newest_open_row_is_found(repository: BaseRepository) -> None:
    now = datetime.now(UTC)
    newest = await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy", "started_at": now})
    await repository.create_lifecycle(
        {"decky_name": "d1", "operation": "deploy", "started_at": now - timedelta(hours=1)}
    )
    row = await repository.find_open_lifecycle("d1", "deploy")
    assert row is not None
    assert row["id"] == newest


async def test_a_sweep_closes_the_stale_row_only(repository: BaseRepository) -> None:
    stale = await repository.create_lifecycle({"decky_name": "stale", "operation": "deploy"})
    fresh = await repository.create_lifecycle({"decky_name": "fresh", "operation": "deploy"})
    # as a caller does it: set back on the open row
    await repository.update_lifecycle(stale, {"started_at": datetime.now(UTC) - timedelta(hours=2)})
    cut = datetime.now(UTC) - timedelta(hours=1)
    assert await repository.sweep_stale_lifecycle(cut, reason="master restarted during operation") == 1
    swept, untouched = await repository.get_lifecycle_by_ids([stale, fresh])
    assert (swept["status"], swept["error"]) == ("failed", "master restarted during operation")
    assert swept["completed_at"] is not None
    assert untouched["status"] == "pending"
    assert await repository.sweep_stale_lifecycle(cut, "again") == 0


async def test_rows_are_json_ready_and_in_utc(repository: BaseRepository) -> None:
    import json

    lifecycle_id = await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"})
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    assert json.loads(json.dumps(row)) == row
    assert datetime.fromisoformat(row["started_at"]).utcoffset() == timedelta(0)


async def test_fifty_thousand_ids_in_one_call(repository: BaseRepository) -> None:
    ids = [await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"}) for _ in range(3)]
    rows = await repository.get_lifecycle_by_ids([*(f"unknown-{n}" for n in range(50_000)), *ids])
    assert [row["id"] for row in rows] == ids
