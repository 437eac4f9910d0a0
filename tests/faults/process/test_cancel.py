"""Cancels that come at the same moment as the end: each row has one end, and all hear of the same."""

import asyncio

import pytest

from repo.base import Lifecycle
from repo.errors import LifecycleClosed
from tests.support.audit import audit, unlocked
from tests.support.fleet import Fleet, running_fleet, wait_status
from worker.client import LifecycleClient

pytestmark = pytest.mark.anyio


async def cancel(client: LifecycleClient, lifecycle_id: str) -> Lifecycle | None:
    """What the operator hears; None for a refusal, since the row had ended before."""
    try:
        return await client.cancel(lifecycle_id)
    except LifecycleClosed:
        return None


async def test_operations_that_end_as_they_are_cancelled() -> None:
    async with running_fleet(max_jobs="20") as fleet:
        await fleet.worker()
        await fleet.reaper()
        async with fleet.client() as client:
            names = [f"decky-{number:02}" for number in range(20)]
            ids = [await client.deploy(name, fleet.document(name, gate=fleet.gate())) for name in names]
            for lifecycle_id in ids:
                await wait_status(client, lifecycle_id, "running")
            # Each is healthy within 0.2 s of the gate, and cancels are looked for every half second.
            fleet.gate().touch()
            heard = await asyncio.gather(*(cancel(client, lifecycle_id) for lifecycle_id in ids))
            rows = [await client.wait(lifecycle_id, timeout=60) for lifecycle_id in ids]
            assert [row for row in heard if row is not None and row not in rows] == []
            ends = {(row["status"], row["error"]) for row in rows}
            assert ends <= {("succeeded", None), ("failed", "cancelled by operator")}
            for row, told in zip(rows, heard, strict=True):
                assert told is not None or row["status"] == "succeeded"
            await unlocked(fleet, *names)
            await audit(fleet, client)


async def test_a_row_cancelled_while_it_is_claimed_has_one_end(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        for number in range(50):
            name = f"decky-{number:02}"
            lifecycle_id = await client.deploy(name, fleet.document(name, gate=fleet.gate("never")))
            row = await cancel(client, lifecycle_id)
            assert row is not None
            assert (row["status"], row["error"]) == ("failed", "cancelled by operator")
            assert await cancel(client, lifecycle_id) is None
        await audit(fleet, client)


async def test_a_cancelled_operation_whose_worker_dies_is_cancelled_and_not_retried(fleet: Fleet) -> None:
    reaper, worker = await fleet.reaper(), await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-a", fleet.document("decky-a", gate=fleet.gate("never")))
        await wait_status(client, lifecycle_id, "running")
        await client.repository.request_cancel(lifecycle_id)
        await worker.kill()
        row = await client.wait(lifecycle_id, timeout=30)
        assert row["error"] == "cancelled by operator"
        by_worker = worker.logged("lifecycle.cancelled", lifecycle_id=lifecycle_id)
        line = (
            by_worker[0] if by_worker else await reaper.log("lifecycle.cancelled", lifecycle_id=lifecycle_id)
        )
        assert line["retry_id"] is None
        assert len(await client.repository.list_lifecycles()) == 1
