"""A connection that breaks at the worst moment: nothing is written twice, and no answer is a lie."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from repo.base import BaseRepository, Deployed
from repo.factory import get_repository
from tests.support.network.tcp_proxy import Proxy, proxy
from tests.support.store.postgres_server import ADMIN_PASSWORD, PostgresServer

pytestmark = pytest.mark.anyio

WAITS_FOR_IT = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)
BEFORE_THE_COMMIT, AT_THE_COMMIT = "decky-01", "COMMIT"


@pytest.fixture
async def cable(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    async with proxy("127.0.0.1", postgres.port) as cable:
        yield cable


@pytest.fixture
async def repository(cable: Proxy, database: str) -> AsyncIterator[BaseRepository]:
    url = f"postgresql://postgres@127.0.0.1:{cable.port}/{database}"
    async with get_repository(url=url, password=ADMIN_PASSWORD) as repository:
        yield repository


async def submitted(repository: BaseRepository, **data: Any) -> str:
    return (await repository.submit_lifecycle({"decky_name": "decky-01", "operation": "deploy"} | data))[0]


async def count(repository: BaseRepository) -> int:
    return len(await repository.list_lifecycles())


@pytest.mark.parametrize("moment", [BEFORE_THE_COMMIT, AT_THE_COMMIT])
async def test_submit(repository: BaseRepository, cable: Proxy, moment: str) -> None:
    cable.swallow_answer_to(moment.encode())
    wanted = {"decky_name": "decky-01", "operation": "deploy", "payload": {"compose": {}}}
    lifecycle_id, created = await repository.submit_lifecycle(wanted)
    assert cable.swallowed == 1
    assert created
    assert [row["id"] for row in await repository.list_lifecycles()] == [lifecycle_id]
    assert await repository.submit_lifecycle(wanted) == (lifecycle_id, False)


@pytest.mark.parametrize("given", ["", "an-id-of-the-caller"])
async def test_create(repository: BaseRepository, cable: Proxy, given: str) -> None:
    cable.swallow_answer_to(b"decky-01")
    wanted = {"decky_name": "decky-01", "operation": "deploy"} | ({"id": given} if given else {})
    lifecycle_id = await repository.create_lifecycle(wanted)
    assert cable.swallowed == 1
    assert [row["id"] for row in await repository.list_lifecycles()] == [lifecycle_id]


@pytest.mark.parametrize("moment", ["", AT_THE_COMMIT])
async def test_claim(repository: BaseRepository, cable: Proxy, moment: str) -> None:
    lifecycle_id = await submitted(repository)
    cable.swallow_answer_to((moment or lifecycle_id).encode())
    claim = await repository.claim_lifecycle(lifecycle_id, "me")
    assert cable.swallowed == 1
    assert claim is not None
    assert (claim.row["status"], claim.row["owner"]) == ("running", "me")
    assert await repository.claim_lifecycle(lifecycle_id, "another") is None


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("moment", ["", AT_THE_COMMIT])
async def test_end(repository: BaseRepository, cable: Proxy, moment: str, retry: bool) -> None:
    lifecycle_id = await submitted(repository)
    await repository.claim_lifecycle(lifecycle_id, "me")
    cable.swallow_answer_to((moment or lifecycle_id).encode())
    deployed = None if retry else Deployed({"services": {}}, [])
    ending = await repository.end_lifecycle(
        lifecycle_id,
        outcome="interrupted" if retry else "succeeded",
        owner="me",
        retry=retry,
        deployed=deployed,
    )
    assert cable.swallowed == 1
    assert ending.applied
    assert ending.outcome == ("interrupted" if retry else "succeeded")
    assert await count(repository) == 1 + retry
    row = await repository.get_lifecycle(lifecycle_id)
    assert row is not None
    assert row["retry_id"] == ending.retry_id
    assert await repository.get_deployed("decky-01", None) == deployed
    again = await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner="me")
    assert not again.applied


async def test_end_whose_row_is_held_when_it_is_asked_again(
    repository: BaseRepository, cable: Proxy, postgres: PostgresServer, database: str
) -> None:
    lifecycle_id = await submitted(repository)
    await repository.claim_lifecycle(lifecycle_id, "me")
    with postgres.connection(database) as other:
        cable.down = True  # for whoever connects anew
        cable.swallow_answer_to(b"COMMIT")
        ending = asyncio.create_task(
            repository.end_lifecycle(lifecycle_id, outcome="interrupted", owner="me", retry=True)
        )
        while not cable.swallowed:
            await asyncio.sleep(0.01)
        with other.transaction():
            other.execute("SELECT FROM decky_lifecycle WHERE id = %s FOR UPDATE", (lifecycle_id,))
            cable.down = False
            while not postgres.psql(WAITS_FOR_IT, database):
                await asyncio.sleep(0.01)
            while postgres.psql(WAITS_FOR_IT, database):
                await asyncio.sleep(0.01)
    assert (await ending).applied


async def test_end_that_yielded_to_a_cancel(repository: BaseRepository, cable: Proxy) -> None:
    lifecycle_id = await submitted(repository)
    await repository.claim_lifecycle(lifecycle_id, "me")
    assert await repository.request_cancel(lifecycle_id) == "running"
    cable.swallow_answer_to(b"COMMIT")
    ending = await repository.end_lifecycle(lifecycle_id, outcome="interrupted", owner="me", retry=True)
    assert cable.swallowed == 1
    assert (ending.applied, ending.outcome, ending.retry_id) == (True, "cancelled", None)


@pytest.mark.parametrize("moment", ["", AT_THE_COMMIT])
@pytest.mark.parametrize("status", ["pending", "running"])
async def test_cancel(repository: BaseRepository, cable: Proxy, moment: str, status: str) -> None:
    lifecycle_id = await submitted(repository)
    if status == "running":
        await repository.claim_lifecycle(lifecycle_id, "me")
    cable.swallow_answer_to((moment or lifecycle_id).encode())
    assert await repository.request_cancel(lifecycle_id) == ("failed" if status == "pending" else "running")
    assert cable.swallowed == 1


async def test_update(repository: BaseRepository, cable: Proxy) -> None:
    lifecycle_id = await submitted(repository)
    for status in ("running", "succeeded"):
        cable.swallow_answer_to(lifecycle_id.encode())
        await repository.update_lifecycle(lifecycle_id, {"status": status})
    assert cable.swallowed == 2


async def test_delivery_is_counted_once(repository: BaseRepository, cable: Proxy) -> None:
    lifecycle_id = await submitted(repository)
    cable.swallow_answer_to(lifecycle_id.encode())
    assert await repository.record_delivery(lifecycle_id, 0)
    assert cable.swallowed == 1
    row = await repository.get_lifecycle(lifecycle_id)
    assert row is not None
    assert row["deliveries"] == 1


@pytest.mark.parametrize("moment", ["", AT_THE_COMMIT])
async def test_retry_of_an_operator(repository: BaseRepository, cable: Proxy, moment: str) -> None:
    lifecycle_id = await submitted(repository, payload={"compose": {}})
    await repository.request_cancel(lifecycle_id)
    cable.swallow_answer_to((moment or lifecycle_id).encode())
    retried = await repository.retry_lifecycle(lifecycle_id)
    assert cable.swallowed == 1
    assert await count(repository) == 2
    assert (await repository.get_lifecycle_by_ids([retried]))[0]["retry_of"] == lifecycle_id


@pytest.mark.parametrize("moment", ["decky-1", AT_THE_COMMIT])
async def test_group(repository: BaseRepository, cable: Proxy, moment: str) -> None:
    """Each of them is accepted once, and the illegal one is refused as ever."""
    given: dict[str, Any] = {"id": "given", "decky_name": "d", "operation": "deploy"}
    await repository.create_lifecycle(given)
    cable.swallow_answer_to(moment.encode())
    wanted: list[dict[str, Any]] = [
        {"decky_name": f"decky-{n}", "operation": "deploy", "payload": {"n": n}} for n in range(40)
    ]
    answers = await asyncio.gather(
        *map(repository.create_lifecycle, [*wanted, given]), return_exceptions=True
    )
    assert cable.swallowed == 1
    assert [type(answer).__name__ for answer in answers] == ["str"] * 40 + ["LifecycleExists"]
    rows = await repository.get_lifecycle_by_ids(map(str, answers[:40]))
    assert sorted(row["decky_name"] for row in rows) == sorted(data["decky_name"] for data in wanted)
    assert await count(repository) == 41


async def test_read_is_asked_again(repository: BaseRepository, cable: Proxy) -> None:
    lifecycle_id = await submitted(repository)
    await repository.get_lifecycle(lifecycle_id)
    cable.swallow_answer_to(lifecycle_id.encode())
    assert await repository.get_lifecycle(lifecycle_id) is not None
    cable.cut()
    assert await repository.get_lifecycle(lifecycle_id) is not None
