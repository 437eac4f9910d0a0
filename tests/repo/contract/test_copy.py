"""A store moves from one engine to another, every row of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from repo.base import BaseRepository, Deployed
from repo.errors import StoreUnusable
from repo.factory import get_engine, get_repository
from repo.migrations.copy import copy_store
from tests.support.store.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio


async def filled(url: str) -> None:
    """A store with rows in every state, with times, errors, documents and names of every kind."""
    async with get_repository(url=url) as repository:
        for number in range(1_205):
            await repository.create_lifecycle({"decky_name": f"d{number}", "operation": "deploy"})
        for number, outcome in enumerate(("succeeded", "failed", "swept", "lost")):
            data = {
                "decky_name": f"Decky_{number}.x",
                "host_uuid": [None, "h1"][number % 2],
                "operation": "deploy",
                "payload": {"compose": {"services": {"ü": {"x": [1, 2.5, None, True, "\U0001f600"]}}}},
            }
            lifecycle_id = await repository.create_lifecycle(data)
            await repository.claim_lifecycle(lifecycle_id, "me")
            await repository.end_lifecycle(
                lifecycle_id,
                outcome=outcome,  # type: ignore[arg-type]
                owner="me",
                error=None if outcome == "succeeded" else "why\nit was so",
                retry=outcome == "swept",
                deployed=Deployed({"services": {"a": {}}}, ["a"]) if outcome == "succeeded" else None,
            )


async def content(repository: BaseRepository) -> list[Any]:
    ids = [row["id"] for row in await repository.list_lifecycles(limit=10_000)]
    return [await repository.get_lifecycle_by_ids(ids), await repository.list_deployed()]


async def test_there_and_back(url: str, tmp_path: Path, postgres: PostgresServer) -> None:
    await filled(url)
    there, back = postgres.tcp_url(postgres.database()), str(tmp_path / "back.db")
    seen = []
    for source, target in ((url, there), (there, back)):
        before, after = get_engine(source), get_engine(target)
        await before.open()
        await after.open()
        assert tuple(await copy_store(before, after)) == (1_210, 1)
        await before.close()
        await after.close()
    for place in (url, there, back):
        async with get_repository(url=place) as repository:
            seen.append(json.dumps(await content(repository), sort_keys=True))
    assert seen[0] == seen[1] == seen[2]


async def test_store_that_holds_rows_is_no_target(url: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other.db")
    for place in (url, other):
        async with get_repository(url=place) as repository:
            await repository.create_lifecycle({"decky_name": "d", "operation": "deploy"})
    before, after = get_engine(other), get_engine(url)
    await before.open()
    await after.open()
    with pytest.raises(StoreUnusable, match="it holds rows already; name an empty store"):
        await copy_store(before, after)
    await before.close()
    await after.close()
    async with get_repository(url=url) as repository:
        assert len(await repository.list_lifecycles()) == 1
