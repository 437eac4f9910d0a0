"""Looking back: what ended, what stands around a row, the figures of an hour. On every engine."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from repo.base import BaseRepository

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


async def ended(
    repository: BaseRepository, name: str, minute: int, *, wait: float = 1, took: float = 2, **more: Any
) -> str:
    """A row that was accepted so many minutes after noon, waited and took so many seconds."""
    accepted = NOON + timedelta(minutes=minute)
    row_id = await repository.create_lifecycle(
        {
            "decky_name": name,
            "operation": more.get("operation", "deploy"),
            "started_at": accepted,
            "host_uuid": more.get("host_uuid"),
            "payload": {"services": [name]},
        }
    )
    claimed = accepted + timedelta(seconds=wait)
    if (error := more.get("error")) != "never claimed":
        await repository.update_lifecycle(row_id, {"status": "running", "claimed_at": claimed})
    end = {"completed_at": claimed + timedelta(seconds=took)}
    await repository.update_lifecycle(
        row_id, end | ({"status": "failed", "error": error} if error else {"status": "succeeded"})
    )
    return row_id


async def test_what_ended_the_latest_first_by_each_filter(repository: BaseRepository) -> None:
    first = await ended(repository, "d1", 0, took=600)
    second = await ended(repository, "d2", 1, error="No Such image: 100% <b>", host_uuid="h1")
    third = await ended(repository, "d2", 2, operation="teardown")
    await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"})

    async def found(**wanted: Any) -> list[str]:
        return [row["id"] for row in await repository.list_ended(**wanted)]

    assert await found() == [first, third, second]
    assert await found(limit=1) == [first]
    assert await found(statuses=["failed"]) == [second]
    assert await found(decky_name="d2") == [third, second]
    assert await found(decky_name="d2", outcomes=["failed"], statuses=["failed"], host_uuid="h1") == [second]
    assert await found(host_uuid="h1") == [second]
    assert await found(host_uuid=None) == [first, third]
    assert await found(operation="teardown") == [third]
    assert await found(error="no such IMAGE: 100% <B>") == [second]
    assert await found(error="0_ <b>") == [], "a wildcard is a character"
    assert await found(since=NOON + timedelta(minutes=2)) == [first, third]
    assert await found(until=NOON + timedelta(minutes=2)) == [second]
    assert await found(outcomes=["failed", "swept"]) == [second]
    [row] = await repository.list_ended(limit=1)
    assert "payload" not in row


async def test_the_rows_around_one(repository: BaseRepository) -> None:
    ids = [await ended(repository, "d1", minute) for minute in (0, 1, 2, 2, 3)]
    await ended(repository, "d1", 2, host_uuid="h1")
    await ended(repository, "d2", 2)
    row = await repository.get_lifecycle(ids[2])
    assert row is not None
    around = await repository.list_around(row, 1)
    assert [each["id"] for each in around] == ids[1:4]
    assert around[0].get("payload") == {"services": ["d1"]}
    assert [each["id"] for each in await repository.list_around(row, 9)] == ids


async def test_the_figures_of_each_hour(repository: BaseRepository) -> None:
    for wait in range(1, 5):
        await ended(repository, "d1", wait, wait=wait, took=10 * wait)
    await ended(repository, "d1", 70, error="never claimed")
    one, two = await repository.hours(NOON)
    assert (one.begins, one.outcomes) == ("2026-05-04T12:00:00+00:00", {"succeeded": 4})
    assert one.wait == pytest.approx((2, 4), abs=1e-3)
    assert one.took == pytest.approx((20, 40), abs=1e-3)
    assert (two.outcomes, two.wait, two.took) == ({"failed": 1}, None, None)
    assert await repository.hours(NOON + timedelta(minutes=60)) == [two]
