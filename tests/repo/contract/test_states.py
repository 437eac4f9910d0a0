"""What a caller may ask of a row, and what is refused, by which error."""

from datetime import UTC, datetime
from typing import Any

import pytest

from repo.base import BaseRepository
from repo.errors import (
    DeckyBusy,
    InvalidLifecycle,
    LifecycleClosed,
    LifecycleExists,
    LifecycleNotFound,
    StoreError,
    TransitionRefused,
)

pytestmark = pytest.mark.anyio
NAIVE = datetime(2026, 1, 1)
DECKY = {"decky_name": "d1", "operation": "deploy"}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"operation": "deploy"}, "decky_name"),
        ({"decky_name": "d1"}, "operation"),
        (DECKY | {"colour": "red"}, "colour"),
        (DECKY | {"decky_name": "-x"}, "decky_name"),
        (DECKY | {"decky_name": "d1\n"}, "decky_name"),
        (DECKY | {"decky_name": "d 1"}, "decky_name"),
        (DECKY | {"decky_name": ".d1"}, "decky_name"),
        (DECKY | {"decky_name": "d" * 129}, "decky_name"),
        (DECKY | {"host_uuid": ""}, "host_uuid"),
        (DECKY | {"host_uuid": "../x"}, "host_uuid"),
        (DECKY | {"operation": "destroy"}, "operation"),
        (DECKY | {"status": "succeeded"}, "status"),
        (DECKY | {"payload": [1]}, "payload"),
        (DECKY | {"payload": {"a": {1, 2}}}, "payload"),
        (DECKY | {"payload": {"a": float("nan")}}, "payload"),
        (DECKY | {"started_at": NAIVE}, "started_at"),
        (DECKY | {"started_at": "2026-01-01"}, "started_at"),
        (DECKY | {"attempt": 0}, "attempt"),
        (DECKY | {"deliveries": 1 << 70}, "deliveries"),
        (DECKY | {"id": "a b"}, "id"),
    ],
)
async def test_a_malformed_row_is_refused_by_name(
    repository: BaseRepository, data: dict[str, Any], named: str
) -> None:
    for accept in (repository.create_lifecycle, repository.submit_lifecycle):
        with pytest.raises(InvalidLifecycle, match=named):
            await accept(data)
    assert await repository.list_open_lifecycles() == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "no field"),
        ({"decky_name": "d2"}, "decky_name"),
        ({"status": "lost"}, "lost"),
        ({"status": None}, "status"),
        ({"error": "x"}, "error"),
        ({"status": "succeeded", "error": "x"}, "error"),
        ({"status": "failed", "error": 5}, "error"),
        ({"status": "running", "completed_at": datetime.now(UTC)}, "completed_at"),
        ({"started_at": NAIVE}, "started_at"),
        ({"started_at": None}, "started_at"),
        ({"owner": 7}, "owner"),
    ],
)
async def test_a_malformed_update_is_refused_by_name(
    repository: BaseRepository, fields: dict[str, Any], named: str
) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    (before,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    with pytest.raises(InvalidLifecycle, match=named):
        await repository.update_lifecycle(lifecycle_id, fields)
    assert await repository.get_lifecycle_by_ids([lifecycle_id]) == [before]


@pytest.mark.parametrize(
    ("way", "step", "error"),
    [
        ([], "pending", TransitionRefused),
        (["running"], "pending", TransitionRefused),
        (["succeeded"], "failed", LifecycleClosed),
        (["failed"], "running", LifecycleClosed),
        (["running", "succeeded"], "pending", LifecycleClosed),
    ],
)
async def test_a_step_that_the_machine_does_not_have(
    repository: BaseRepository, way: list[str], step: str, error: type[StoreError]
) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    for status in way:
        await repository.update_lifecycle(lifecycle_id, {"status": status})
    (before,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    with pytest.raises(error, match=lifecycle_id):
        await repository.update_lifecycle(lifecycle_id, {"status": step})
    assert await repository.get_lifecycle_by_ids([lifecycle_id]) == [before]


async def test_a_terminal_row_refuses_every_field(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    await repository.update_lifecycle(lifecycle_id, {"status": "succeeded"})
    for fields in ({"started_at": datetime.now(UTC)}, {"owner": "me"}):
        with pytest.raises(LifecycleClosed):
            await repository.update_lifecycle(lifecycle_id, fields)


async def test_unknown_and_taken_ids(repository: BaseRepository) -> None:
    with pytest.raises(LifecycleNotFound, match="nowhere"):
        await repository.update_lifecycle("nowhere", {"status": "running"})
    with pytest.raises(LifecycleNotFound):
        await repository.end_lifecycle("nowhere", outcome="succeeded")
    with pytest.raises(LifecycleNotFound):
        await repository.request_cancel("nowhere")
    taken = await repository.create_lifecycle(DECKY)
    for accept in (repository.create_lifecycle, repository.submit_lifecycle):
        with pytest.raises(LifecycleExists, match=taken):
            await accept({"id": taken, "decky_name": "d9", "operation": "mutate"})


async def test_one_operation_runs_on_a_decky_at_a_time(repository: BaseRepository) -> None:
    first, second = [await repository.create_lifecycle(DECKY) for _ in range(2)]
    elsewhere = await repository.create_lifecycle(DECKY | {"host_uuid": "host-1"})
    await repository.update_lifecycle(first, {"status": "running"})
    await repository.update_lifecycle(elsewhere, {"status": "running"})
    with pytest.raises(DeckyBusy, match="d1"):
        await repository.update_lifecycle(second, {"status": "running"})
    await repository.update_lifecycle(first, {"status": "succeeded"})
    await repository.update_lifecycle(second, {"status": "running"})


async def test_an_error_is_cut_and_always_writable(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    await repository.update_lifecycle(lifecycle_id, {"status": "failed", "error": "\udcff" + "x" * 5_000})
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    assert row["error"] == "?" + "x" * 1_999
