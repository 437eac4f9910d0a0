"""Many callers in one transaction, and each of them gets its own answer."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from repo.base import BaseRepository, Deployed
from repo.errors import (
    DeckyBusy,
    InvalidLifecycle,
    LifecycleClosed,
    LifecycleExists,
    LifecycleNotFound,
    StoreUnusable,
    TransitionRefused,
)
from repo.factory import get_repository

pytestmark = pytest.mark.anyio


def decky(n: int) -> dict[str, str]:
    return {"decky_name": f"d{n}", "operation": "deploy"}


async def statuses(repository: BaseRepository, ids: list[str]) -> list[str]:
    rows = {row["id"]: row["status"] for row in await repository.get_lifecycle_by_ids(ids)}
    return [rows[lifecycle_id] for lifecycle_id in ids]


async def test_an_illegal_write_fails_alone(repository: BaseRepository) -> None:
    ids = [await repository.create_lifecycle(decky(n)) for n in range(20)]
    closed, running = ids[:2]
    await repository.update_lifecycle(closed, {"status": "succeeded"})
    await repository.update_lifecycle(running, {"status": "running"})
    rival = await repository.create_lifecycle(decky(1))
    outcomes = await asyncio.gather(
        repository.update_lifecycle(closed, {"status": "failed"}),
        repository.update_lifecycle(running, {"status": "pending"}),
        repository.update_lifecycle(rival, {"status": "running"}),
        repository.update_lifecycle("nowhere", {"status": "running"}),
        repository.create_lifecycle(decky(1) | {"id": ids[5]}),
        repository.update_lifecycle(ids[6], {"colour": "red"}),
        repository.claim_lifecycle(rival, "w"),
        *(repository.update_lifecycle(lifecycle_id, {"status": "running"}) for lifecycle_id in ids[2:]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes[:6]] == [
        LifecycleClosed,
        TransitionRefused,
        DeckyBusy,
        LifecycleNotFound,
        LifecycleExists,
        InvalidLifecycle,
    ]
    assert outcomes[6:] == [None] * 19
    assert await statuses(repository, ids) == ["succeeded", *["running"] * 19]
    assert await statuses(repository, [rival]) == ["pending"]


@pytest.mark.parametrize("bad", ["a\0b", "\udcff"])
async def test_a_write_that_no_database_can_hold_fails_alone(repository: BaseRepository, bad: str) -> None:
    ids = [await repository.create_lifecycle(decky(n)) for n in range(5)]
    outcomes = await asyncio.gather(
        repository.request_cancel(bad),
        *(repository.claim_lifecycle(lifecycle_id, "me") for lifecycle_id in ids),
        repository.record_delivery(bad, 0),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Exception)
    assert not any(isinstance(outcome, Exception) for outcome in outcomes[1:-1])
    assert await statuses(repository, ids) == ["running"] * 5


async def test_writes_of_one_row_keep_their_order(repository: BaseRepository) -> None:
    ids = [f"row-{n}" for n in range(30)]
    outcomes = await asyncio.gather(
        *(repository.create_lifecycle(decky(n) | {"id": lifecycle_id}) for n, lifecycle_id in enumerate(ids)),
        *(repository.update_lifecycle(lifecycle_id, {"status": "running"}) for lifecycle_id in ids),
        *(repository.update_lifecycle(lifecycle_id, {"status": "succeeded"}) for lifecycle_id in ids),
        repository.update_lifecycle(ids[0], {"status": "failed"}),
        return_exceptions=True,
    )
    assert isinstance(outcomes.pop(), LifecycleClosed)
    assert outcomes == ids + [None] * 60
    assert await statuses(repository, ids) == ["succeeded"] * 30


ODD = ["", "NULL", "null", "{}", '{"a",b}', "\\", '\\"', "'", "a\nb", ",", " ", "é ☃ 𝄞", "%s", "x" * 2_000]


async def test_many_at_once_are_written_as_each_would_be_alone(repository: BaseRepository) -> None:
    odd = dict(enumerate(ODD))

    def asked(n: int) -> dict[str, Any]:
        return decky(n) | {"payload": {"compose": {"services": {odd[n]: [odd[n], n, None, 1.5]}}}}

    async def all_of(call: Callable[[int], Coroutine[Any, Any, Any]]) -> list[Any]:
        return await asyncio.gather(*map(call, odd))

    submitted = await all_of(lambda n: repository.submit_lifecycle(asked(n)))
    assert await all_of(lambda n: repository.submit_lifecycle(asked(n))) == [
        (id_, False) for id_, _ in submitted
    ]
    ids = [lifecycle_id for lifecycle_id, accepted in submitted if accepted]
    assert await all_of(lambda n: repository.record_delivery(ids[n], 0)) == [True] * len(odd)
    claims = await all_of(lambda n: repository.claim_lifecycle(ids[n], f"w{n}", decky=(f"d{n}", None)))
    assert [(c.row["payload"], c.row["owner"], c.row["deliveries"]) for c in claims] == [
        (asked(n)["payload"], f"w{n}", 1) for n in odd
    ]
    await all_of(
        lambda n: repository.end_lifecycle(
            ids[n], outcome="succeeded", owner=f"w{n}", deployed=Deployed(asked(n)["payload"], [odd[n]])
        )
    )
    for n in odd:
        deployed = await repository.get_deployed(f"d{n}", None)
        assert deployed == Deployed(asked(n)["payload"], [odd[n]])
    again = await all_of(lambda n: repository.retry_lifecycle(ids[n]))
    await all_of(lambda n: repository.claim_lifecycle(again[n], f"w{n}"))
    ends = await all_of(
        lambda n: repository.end_lifecycle(
            again[n], outcome="interrupted", owner=f"w{n}", error=odd[n], undeploy=True, retry=True
        )
    )
    rows = [await repository.get_lifecycle(lifecycle_id) for lifecycle_id in again]
    assert [(row["error"], row["retry_id"]) for row in rows if row] == [
        (odd[n], end.retry_id) for n, end in enumerate(ends)
    ]
    retries = await repository.get_lifecycle_by_ids([end.retry_id for end in ends])
    assert [(row["attempt"], row["payload"]) for row in retries] == [(2, asked(n)["payload"]) for n in odd]
    assert [await repository.get_deployed(f"d{n}", None) for n in odd] == [None] * len(odd)


async def test_the_same_request_many_times_at_once_is_accepted_once(repository: BaseRepository) -> None:
    for deckies in (3, 150):
        answers = await asyncio.gather(
            *(
                repository.submit_lifecycle(decky(n % deckies) | {"host_uuid": f"h{deckies}"})
                for n in range(300)
            )
        )
        assert sum(accepted for _, accepted in answers) == deckies
        assert len({lifecycle_id for lifecycle_id, _ in answers}) == deckies


async def test_callers_that_share_an_error_get_one_each(repository: BaseRepository) -> None:
    errors = await asyncio.gather(
        *(repository.update_lifecycle("nowhere", {"status": "failed"}) for _ in range(5)),
        return_exceptions=True,
    )
    assert len({id(error) for error in errors}) == 5


async def test_a_cancelled_caller_disturbs_nobody(repository: BaseRepository) -> None:
    callers = [asyncio.create_task(repository.create_lifecycle(decky(n))) for n in range(50)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    kept = [str(outcome) for outcome in outcomes[1::2]]
    assert await statuses(repository, kept) == ["pending"] * 25
    await repository.create_lifecycle(decky(99))


async def test_another_event_loop_needs_a_repository_of_its_own(repository: BaseRepository) -> None:
    def elsewhere() -> None:
        with pytest.raises(StoreUnusable, match="another event loop"):
            asyncio.run(repository.create_lifecycle(decky(1)))

    await asyncio.to_thread(elsewhere)
    await repository.create_lifecycle(decky(1))


async def test_closing_answers_what_was_asked(url: str) -> None:
    repository = get_repository(url=url)
    await repository.initialize()
    callers = [asyncio.create_task(repository.create_lifecycle(decky(n))) for n in range(50)]
    await asyncio.sleep(0)
    await repository.close()
    assert len(set(await asyncio.gather(*callers))) == 50
    async with repository:
        assert len(await repository.list_open_lifecycles()) == 50


FORGETFUL = """
import asyncio, sys
from repo.factory import get_repository

kept = get_repository(url=sys.argv[1])

async def main():
    await kept.initialize()
    dropped = get_repository(url=sys.argv[1])
    await dropped.initialize()
    for repository in (kept, dropped):
        print(await repository.create_lifecycle({"decky_name": "d1", "operation": "deploy"}))
    if sys.argv[2] == "busy":
        asyncio.ensure_future(kept.create_lifecycle({"decky_name": "d1", "operation": "deploy"}))
        await asyncio.sleep(0)

asyncio.run(main(), debug=False)  # a loaded machine is slow, which is no matter here
"""


@pytest.mark.parametrize("when", ["idle", "busy"])
async def test_forgetting_to_close_costs_nothing(repository: BaseRepository, url: str, when: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-X", "dev", "-c", FORGETFUL, url, when),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), timeout=60)
    assert (process.returncode, err) == (0, b"")
    printed = out.decode().split()
    assert len(printed) == 2
    assert set(printed) <= {row["id"] for row in await repository.list_open_lifecycles()}
