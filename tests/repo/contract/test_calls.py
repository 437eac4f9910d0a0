"""The calls that workers, the master and the reaper are built on."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from repo.base import BaseRepository, Deployed, Ending, Lifecycle, Outcome
from repo.errors import DeckyBusy, InvalidLifecycle, LifecycleClosed, LifecycleNotFound, TransitionRefused
from repo.factory import get_repository
from repo.repository.ids import id_after, new_id

pytestmark = pytest.mark.anyio
DECKY = {"decky_name": "d1", "operation": "deploy"}
DOCUMENT: dict[str, Any] = {"services": {"d1": {}, "d1-ssh": {}}}


async def row_of(repository: BaseRepository, lifecycle_id: str) -> Lifecycle:
    (row,) = await repository.get_lifecycle_by_ids([lifecycle_id])
    return row


async def test_submitting_the_same_twice_gives_the_same_row(repository: BaseRepository) -> None:
    wish = DECKY | {"payload": {"compose": DOCUMENT, "x": 1}}
    first, created = await repository.submit_lifecycle(wish)
    again = await repository.submit_lifecycle(DECKY | {"payload": {"x": 1, "compose": DOCUMENT}})
    assert created
    assert again == (first, False)
    for other in (
        wish | {"host_uuid": "host-1"},
        wish | {"decky_name": "d2"},
        wish | {"operation": "mutate"},
        wish | {"payload": {"x": 2}},
        DECKY,
    ):
        _, created = await repository.submit_lifecycle(other)
        assert created


async def test_only_the_newest_open_row_makes_a_wish_superfluous(repository: BaseRepository) -> None:
    a, b = DECKY | {"payload": {"wish": "a"}}, DECKY | {"payload": {"wish": "b"}}
    first, _ = await repository.submit_lifecycle(a)
    await repository.submit_lifecycle(b)
    third, created = await repository.submit_lifecycle(a)
    assert created
    assert third != first
    await repository.update_lifecycle(third, {"status": "failed"})
    assert (await repository.submit_lifecycle(a))[1]


async def test_a_wish_is_not_met_by_a_row_that_is_being_cancelled(repository: BaseRepository) -> None:
    first, _ = await repository.submit_lifecycle(DECKY)
    await repository.claim_lifecycle(first, "worker-1")
    await repository.request_cancel(first)
    second, created = await repository.submit_lifecycle(DECKY)
    assert created
    assert second != first


async def test_a_row_of_another_decky_is_not_claimed(repository: BaseRepository) -> None:
    """What the queue says of a row may be wrong, and the lock that is held another decky's."""
    row = await repository.create_lifecycle(DECKY | {"host_uuid": "h1"})
    name = DECKY["decky_name"]
    for other in ((name, None), (name, "h2"), ("decky-99", "h1")):
        assert await repository.claim_lifecycle(row, "worker", decky=other) is None
    assert await repository.claim_lifecycle(row, "worker", decky=(name, "h1"))


async def test_twenty_submits_that_are_made_durable_together(repository: BaseRepository, url: str) -> None:
    async def submit(number: int) -> str:
        wish = {"decky_name": f"decky-{number}", "operation": "deploy"}
        lifecycle_id, created = await repository.submit_lifecycle(wish, durable=False)
        assert created
        assert await other.get_lifecycle(lifecycle_id) is not None
        await repository.sync()
        return lifecycle_id

    async with get_repository(url=url) as other:
        submitted = await asyncio.gather(*map(submit, range(20)))
    assert len(set(submitted)) == 20
    await repository.sync()


async def test_twenty_at_once_make_one_row(repository: BaseRepository) -> None:
    answers = await asyncio.gather(*(repository.submit_lifecycle(DECKY) for _ in range(20)))
    assert len({lifecycle_id for lifecycle_id, _ in answers}) == 1
    assert [created for _, created in answers].count(True) == 1


async def test_a_claim_gives_the_whole_row_once(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY | {"payload": {"compose": DOCUMENT}})
    claim = await repository.claim_lifecycle(lifecycle_id, "worker-1")
    assert claim is not None
    assert claim.deployed is None
    row = claim.row
    assert row == await row_of(repository, lifecycle_id)
    assert (row["status"], row["owner"], row["payload"]) == ("running", "worker-1", {"compose": DOCUMENT})
    assert row["claimed_at"] is not None
    assert await repository.claim_lifecycle(lifecycle_id, "worker-2") is None
    assert await repository.claim_lifecycle("nowhere", "worker-2") is None
    assert (await row_of(repository, lifecycle_id))["owner"] == "worker-1"


async def test_claims_follow_the_order_of_acceptance(repository: BaseRepository) -> None:
    first, second, third = [await repository.create_lifecycle(DECKY) for _ in range(3)]
    elsewhere = await repository.create_lifecycle(DECKY | {"host_uuid": "host-1"})
    assert await repository.claim_lifecycle(elsewhere, "w") is not None
    assert await repository.claim_lifecycle(second, "w") is None
    assert await repository.claim_lifecycle(first, "w") is not None
    assert await repository.claim_lifecycle(second, "w") is None
    await repository.end_lifecycle(first, outcome="succeeded", owner="w")
    assert await repository.claim_lifecycle(third, "w") is None
    assert await repository.claim_lifecycle(second, "w") is not None


async def test_twenty_claims_at_once_admit_one(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    rows = await asyncio.gather(*(repository.claim_lifecycle(lifecycle_id, f"w{n}") for n in range(20)))
    (winner,) = [row for row in rows if row is not None]
    assert (await row_of(repository, lifecycle_id))["owner"] == winner.row["owner"]


async def test_only_the_owner_ends_a_running_row(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    await repository.claim_lifecycle(lifecycle_id, "worker-1")
    what = Deployed(DOCUMENT, ["d1"])
    for late in (
        {"owner": "worker-2"},
        {"owner": None},
        {"owner": "worker-1", "expect": "pending"},
        {"owner": "worker-2", "deployed": what, "retry": True},
    ):
        answer = await repository.end_lifecycle(lifecycle_id, outcome="failed", error="late", **late)
        assert answer == Ending(False)
    assert await repository.get_deployed("d1", None) is None
    assert [row["id"] for row in await repository.list_open_lifecycles()] == [lifecycle_id]
    ended = await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner="worker-1")
    assert ended == Ending(True, "succeeded", more=False)
    assert await repository.end_lifecycle(lifecycle_id, outcome="failed", owner="worker-1") == Ending(False)
    row = await row_of(repository, lifecycle_id)
    assert (row["status"], row["error"]) == ("succeeded", None)


async def test_rows_without_owner_and_pending_rows_can_be_ended(repository: BaseRepository) -> None:
    running, pending = [
        await repository.create_lifecycle({"decky_name": name, "operation": "deploy"})
        for name in ("d1", "d2")
    ]
    await repository.update_lifecycle(running, {"status": "running"})
    ended = await repository.end_lifecycle(running, outcome="failed", error="x" * 3_000)
    assert ended == Ending(True, "failed", "x" * 2_000, more=False)
    assert len((await row_of(repository, running))["error"] or "") == 2_000
    assert await repository.end_lifecycle(pending, outcome="failed", expect="running") == Ending(False)
    ended = await repository.end_lifecycle(pending, outcome="cancelled", expect="pending")
    assert ended == Ending(True, "cancelled", more=False)
    with pytest.raises(InvalidLifecycle, match="error"):
        await repository.end_lifecycle(pending, outcome="succeeded", error="x")


async def test_a_retry_runs_before_what_was_accepted_later(repository: BaseRepository) -> None:
    first = await repository.create_lifecycle(DECKY | {"payload": {"compose": DOCUMENT}})
    later = await repository.create_lifecycle(DECKY | {"operation": "mutate"})
    await repository.claim_lifecycle(first, "w")
    ending = await repository.end_lifecycle(first, outcome="failed", owner="w", error="died", retry=True)
    assert ending.applied
    assert ending.retry_id is not None
    assert await repository.claim_lifecycle(later, "w") is None
    claim = await repository.claim_lifecycle(ending.retry_id, "w")
    assert claim is not None
    retry = claim.row
    assert (retry["retry_of"], retry["attempt"]) == (first, 2)
    assert (retry["operation"], retry["payload"]) == ("deploy", {"compose": DOCUMENT})
    assert (retry["deliveries"], retry["error"], retry["completed_at"]) == (1, None, None)
    assert retry["enqueued_at"] is not None
    assert retry["started_at"] > (await row_of(repository, first))["started_at"]


async def test_what_a_decky_runs_is_recorded_with_the_end(repository: BaseRepository) -> None:
    for services in (["d1"], ["d1", "d1-ssh"]):
        lifecycle_id = await repository.create_lifecycle(DECKY)
        await repository.claim_lifecycle(lifecycle_id, "w")
        await repository.end_lifecycle(
            lifecycle_id, outcome="succeeded", owner="w", deployed=Deployed(DOCUMENT, services)
        )
        assert await repository.get_deployed("d1", None) == Deployed(DOCUMENT, services)
    claim = await repository.claim_lifecycle(await repository.create_lifecycle(DECKY), "w")
    assert claim is not None
    assert claim.deployed == Deployed(DOCUMENT, ["d1", "d1-ssh"])
    assert await repository.get_deployed("d1", "host-1") is None


async def test_a_mutate_finds_the_document_that_will_be_there(repository: BaseRepository) -> None:
    assert await repository.find_document("d1", None) is None
    first = await repository.create_lifecycle(DECKY)
    await repository.claim_lifecycle(first, "w")
    await repository.end_lifecycle(first, outcome="succeeded", owner="w", deployed=Deployed(DOCUMENT, ["d1"]))
    assert await repository.find_document("d1", None) == DOCUMENT
    newer = {"services": {"d1": {"image": "new"}}}
    await repository.create_lifecycle(DECKY | {"payload": {"compose": {"services": {}}}})
    await repository.create_lifecycle(DECKY | {"payload": {"compose": newer}})
    await repository.create_lifecycle(DECKY | {"payload": {"services": ["ssh"]}})
    await repository.create_lifecycle(DECKY | {"host_uuid": "host-1", "payload": {"compose": {}}})
    assert await repository.find_document("d1", None) == newer


async def test_cancel(repository: BaseRepository) -> None:
    running = await repository.create_lifecycle(DECKY)
    pending = await repository.create_lifecycle(DECKY)
    await repository.claim_lifecycle(running, "w")
    assert await repository.find_cancelled("w") == []
    assert await repository.request_cancel(running) == "running"
    marked = await row_of(repository, running)
    assert await repository.request_cancel(running) == "running"
    assert (await row_of(repository, running))["cancel_requested_at"] == marked["cancel_requested_at"]
    assert await repository.find_cancelled("w") == [running]
    assert await repository.find_cancelled("other") == []
    assert await repository.request_cancel(pending) == "failed"
    row = await row_of(repository, pending)
    assert (row["status"], row["error"]) == ("failed", "cancelled by operator")
    with pytest.raises(LifecycleClosed):
        await repository.request_cancel(pending)
    await repository.end_lifecycle(running, outcome="failed", owner="w", error="cancelled by operator")
    assert await repository.find_cancelled("w") == []


async def test_a_delivery_is_counted_once(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    assert await repository.record_delivery(lifecycle_id, 0)
    assert not await repository.record_delivery(lifecycle_id, 0)
    row = await row_of(repository, lifecycle_id)
    assert row["deliveries"] == 1
    assert row["enqueued_at"] is not None
    await repository.claim_lifecycle(lifecycle_id, "w")
    assert not await repository.record_delivery(lifecycle_id, 1)


async def test_finding_the_next_and_all_open(repository: BaseRepository) -> None:
    later, earlier = new_id(), None
    earlier = await repository.create_lifecycle(DECKY | {"id": "0-first", "payload": {"a": 1}})
    await repository.create_lifecycle(DECKY | {"id": later})
    elsewhere = await repository.create_lifecycle(DECKY | {"host_uuid": "host-1"})
    found = await repository.find_next_lifecycle("d1", None)
    assert found is not None
    assert found["id"] == earlier
    assert "payload" not in found
    on_host = await repository.find_next_lifecycle("d1", "host-1")
    assert on_host is not None
    assert on_host["id"] == elsewhere
    assert await repository.find_next_lifecycle("d2", None) is None
    everything = await repository.list_open_lifecycles()
    assert [row["id"] for row in everything] == [earlier, later, elsewhere]
    assert all("payload" not in row for row in everything)


async def test_listing(repository: BaseRepository) -> None:
    now = datetime.now(UTC)
    ids = [
        await repository.create_lifecycle(
            {
                "decky_name": f"d{n % 2}",
                "operation": "deploy",
                "host_uuid": "host-1" if n == 3 else None,
                "started_at": now - timedelta(minutes=10 - n),
            }
        )
        for n in range(4)
    ]
    await repository.update_lifecycle(ids[0], {"status": "failed"})

    async def listed(**filters: Any) -> list[int]:
        return [ids.index(row["id"]) for row in await repository.list_lifecycles(**filters)]

    assert await listed() == [3, 2, 1, 0]
    assert await listed(limit=2) == [3, 2]
    assert await listed(statuses=["failed", "succeeded"]) == [0]
    assert await listed(decky_name="d1") == [3, 1]
    assert await listed(host_uuid="host-1") == [3]
    assert await listed(since=now - timedelta(minutes=8, seconds=1)) == [3, 2]
    with pytest.raises(InvalidLifecycle, match="since"):
        await listed(since=datetime(2026, 1, 1))


async def test_pruning_takes_the_oldest_terminal_rows_in_batches(repository: BaseRepository) -> None:
    ended = datetime.now(UTC) - timedelta(days=40)
    ids = [await repository.create_lifecycle(DECKY) for _ in range(5)]
    for n, lifecycle_id in enumerate(ids[:4]):
        when = ended + timedelta(hours=n)
        await repository.update_lifecycle(lifecycle_id, {"status": "succeeded", "completed_at": when})
    cut = ended + timedelta(hours=2, minutes=1)
    assert await repository.prune_lifecycles(cut, limit=2) == 2
    assert [row["id"] for row in await repository.get_lifecycle_by_ids(ids)] == ids[2:]
    assert await repository.prune_lifecycles(cut, limit=2) == 1
    assert await repository.prune_lifecycles(cut) == 0
    assert [row["id"] for row in await repository.get_lifecycle_by_ids(ids)] == ids[3:]


async def test_a_cut_must_say_its_time_zone(repository: BaseRepository) -> None:
    with pytest.raises(InvalidLifecycle, match="older_than"):
        await repository.sweep_stale_lifecycle(datetime(2026, 1, 1), "x")
    with pytest.raises(InvalidLifecycle, match="older_than"):
        await repository.prune_lifecycles(datetime(2026, 1, 1))


async def test_a_row_may_be_created_as_running(repository: BaseRepository) -> None:
    first = await repository.create_lifecycle(DECKY | {"status": "running"})
    assert (await row_of(repository, first))["status"] == "running"
    with pytest.raises(DeckyBusy, match="d1"):
        await repository.create_lifecycle(DECKY | {"status": "running"})


async def test_running_to_running_changes_nothing_but_the_stamp(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY)
    await repository.update_lifecycle(lifecycle_id, {"status": "running"})
    before = await row_of(repository, lifecycle_id)
    await repository.update_lifecycle(lifecycle_id, fields={"status": "running"})
    after = await row_of(repository, lifecycle_id)
    assert after["updated_at"] > before["updated_at"]
    assert after == {**before, "updated_at": after["updated_at"]}


@pytest.mark.parametrize("outcome", ["timed_out", "cancelled", "interrupted", "swept", "expired", "lost"])
async def test_the_status_follows_from_the_outcome(repository: BaseRepository, outcome: Outcome) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY | {"status": "running"})
    assert (await row_of(repository, lifecycle_id))["outcome"] is None
    ending = await repository.end_lifecycle(lifecycle_id, outcome=outcome, error="why")
    assert (ending.outcome, ending.error) == (outcome, "why")
    row = await row_of(repository, lifecycle_id)
    assert (row["status"], row["outcome"], row["error"]) == ("failed", outcome, "why")


async def test_a_cancel_that_was_accepted_wins_over_an_interruption(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY | {"payload": {"compose": DOCUMENT}})
    await repository.claim_lifecycle(lifecycle_id, "w")
    await repository.request_cancel(lifecycle_id)
    ending = await repository.end_lifecycle(
        lifecycle_id, outcome="interrupted", owner="w", error="worker stopped during operation", retry=True
    )
    assert (ending.applied, ending.outcome, ending.retry_id) == (True, "cancelled", None)
    row = await row_of(repository, lifecycle_id)
    assert (row["outcome"], row["error"], row["retry_id"]) == ("cancelled", "cancelled by operator", None)
    assert await repository.list_open_lifecycles() == []


async def test_what_ended_by_itself_is_not_cancelled_any_more(repository: BaseRepository) -> None:
    for outcome, error in (("succeeded", None), ("failed", "it broke")):
        lifecycle_id = await repository.create_lifecycle(DECKY)
        await repository.claim_lifecycle(lifecycle_id, "w")
        await repository.request_cancel(lifecycle_id)
        await repository.end_lifecycle(lifecycle_id, outcome=cast(Outcome, outcome), owner="w", error=error)
        assert (await row_of(repository, lifecycle_id))["outcome"] == outcome


async def test_a_retry_whose_place_is_taken_gets_another_id(repository: BaseRepository) -> None:
    lifecycle_id = await repository.create_lifecycle(DECKY | {"payload": {"compose": DOCUMENT}})
    taken = await repository.create_lifecycle(
        {"decky_name": "d2", "operation": "deploy", "id": id_after(lifecycle_id)}
    )
    await repository.claim_lifecycle(lifecycle_id, "w")
    ending = await repository.end_lifecycle(
        lifecycle_id, outcome="swept", owner="w", error="died", retry=True
    )
    assert ending.applied
    assert ending.retry_id not in {None, taken}
    row = await row_of(repository, lifecycle_id)
    assert (row["status"], row["retry_id"]) == ("failed", ending.retry_id)


async def test_an_operator_has_a_request_repeated(repository: BaseRepository) -> None:
    payload = {"compose": DOCUMENT}
    first = await repository.create_lifecycle(
        DECKY | {"payload": payload, "host_uuid": "host-1", "attempt": 2}
    )
    with pytest.raises(TransitionRefused, match=first):
        await repository.retry_lifecycle(first)
    await repository.update_lifecycle(first, {"status": "failed"})
    again = await row_of(repository, await repository.retry_lifecycle(first))
    assert (again["status"], again["payload"], again["host_uuid"]) == ("pending", payload, "host-1")
    assert (again["retry_of"], again["attempt"], again["deliveries"]) == (first, 1, 1)
    with pytest.raises(LifecycleNotFound):
        await repository.retry_lifecycle("nowhere")
    unknown = await repository.create_lifecycle(DECKY)
    await repository.update_lifecycle(unknown, {"status": "failed"})
    with pytest.raises(InvalidLifecycle, match=unknown):
        await repository.retry_lifecycle(unknown)


async def test_a_teardown_forgets_what_the_decky_ran(repository: BaseRepository) -> None:
    for name in ("d1", "d2"):
        lifecycle_id = await repository.create_lifecycle({"decky_name": name, "operation": "deploy"})
        await repository.claim_lifecycle(lifecycle_id, "w")
        await repository.end_lifecycle(
            lifecycle_id, outcome="succeeded", owner="w", deployed=Deployed(DOCUMENT, [name])
        )
    lifecycle_id = await repository.create_lifecycle({"decky_name": "d1", "operation": "teardown"})
    await repository.claim_lifecycle(lifecycle_id, "w")
    await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner="w", undeploy=True)
    assert await repository.get_deployed("d1", None) is None
    assert [decky["decky_name"] for decky in await repository.list_deployed()] == ["d2"]
    await repository.update_lifecycle(await repository.create_lifecycle(DECKY), {"status": "succeeded"})
    assert await repository.find_document("d1", None) is None


async def test_what_deckies_run_is_listed(repository: BaseRepository) -> None:
    made = {}
    for name, host in (("d2", None), ("d1", "host-1")):
        lifecycle_id = await repository.create_lifecycle(
            {"decky_name": name, "operation": "deploy", "host_uuid": host}
        )
        await repository.claim_lifecycle(lifecycle_id, "w")
        what = Deployed(DOCUMENT, [name])
        await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner="w", deployed=what)
        made[name] = await row_of(repository, lifecycle_id)
    assert await repository.list_deployed() == [
        {
            "decky_name": name,
            "host_uuid": host,
            "services": [name],
            "deployed_at": made[name]["completed_at"],
            "lifecycle_id": made[name]["id"],
        }
        for name, host in (("d1", "host-1"), ("d2", None))
    ]
    assert [decky["decky_name"] for decky in await repository.list_deployed(host_uuid=None)] == ["d2"]
    assert [decky["decky_name"] for decky in await repository.list_deployed(host_uuid="host-1")] == ["d1"]
    assert await repository.list_deployed(decky_name="d3") == []


async def test_rows_that_are_first_in_line(repository: BaseRepository) -> None:
    running = await repository.create_lifecycle(DECKY)
    await repository.create_lifecycle(DECKY)
    first = await repository.create_lifecycle({"decky_name": "d2", "operation": "deploy", "payload": {}})
    await repository.create_lifecycle({"decky_name": "d2", "operation": "mutate"})
    other = await repository.create_lifecycle({"decky_name": "d3", "operation": "deploy"})
    elsewhere = await repository.create_lifecycle(DECKY | {"host_uuid": "host-1"})
    await repository.claim_lifecycle(running, "w")
    ready = await repository.find_ready_lifecycles(None, 10)
    assert [row["id"] for row in ready] == [first, other]
    assert all("payload" not in row for row in ready)
    assert [row["id"] for row in await repository.find_ready_lifecycles(None, 1)] == [first]
    assert [row["id"] for row in await repository.find_ready_lifecycles("host-1", 10)] == [elsewhere]


async def test_open_rows_and_a_sweep_of_one_host(repository: BaseRepository) -> None:
    ours = await repository.create_lifecycle(DECKY)
    theirs = await repository.create_lifecycle(DECKY | {"host_uuid": "host-1"})
    assert [row["id"] for row in await repository.list_open_lifecycles()] == [ours, theirs]
    assert [row["id"] for row in await repository.list_open_lifecycles(None)] == [ours]
    assert [row["id"] for row in await repository.list_open_lifecycles("host-1")] == [theirs]
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await repository.sweep_stale_lifecycle(later, "not seen for 1h", host_uuid=None) == 1
    assert (await row_of(repository, ours))["outcome"] == "swept"
    assert [row["id"] for row in await repository.list_open_lifecycles()] == [theirs]


async def test_listing_by_outcome_and_operation(repository: BaseRepository) -> None:
    swept, failed = [await repository.create_lifecycle(DECKY) for _ in range(2)]
    torn = await repository.create_lifecycle(DECKY | {"operation": "teardown"})
    await repository.end_lifecycle(swept, outcome="swept", expect="pending", error="x")
    await repository.update_lifecycle(failed, {"status": "failed", "error": "x"})
    assert [row["id"] for row in await repository.list_lifecycles(outcomes=["swept", "lost"])] == [swept]
    assert [row["id"] for row in await repository.list_lifecycles(operation="teardown")] == [torn]


async def test_rows_elsewhere_and_rows_that_were_lost(repository: BaseRepository) -> None:
    ours, first, second = [
        await repository.create_lifecycle(DECKY | {"host_uuid": host}) for host in (None, "host-1", "host-2")
    ]
    ids = [row["id"] for row in await repository.list_open_elsewhere([None, "host-2"])]
    assert ids == [first]
    assert len(await repository.list_open_elsewhere([])) == 3
    for lifecycle_id in (ours, first):
        await repository.claim_lifecycle(lifecycle_id, "w")
        ending = await repository.end_lifecycle(lifecycle_id, outcome="lost", owner="w", if_host="absent")
        assert ending.applied, "nobody has a session for it"
    assert [row["id"] for row in await repository.list_lost_lifecycles("host-1")] == [first]
    assert [row["id"] for row in await repository.list_lost_lifecycles(None)] == [ours]
    assert [row["id"] for row in await repository.list_open_elsewhere([])] == [second]
    assert await repository.list_hosts() == []
