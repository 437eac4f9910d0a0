"""What a mutate refuses before there is a row."""

from pathlib import Path

import pytest

from repo.factory import get_repository
from worker.operations.base import InvalidRequest, Request
from worker.operations.mutate import Mutate

pytestmark = pytest.mark.anyio

DOCUMENT = {"services": {"decky-01": {"image": "x"}}}


@pytest.mark.parametrize("host_uuid", [None, "h1"])
async def test_a_decky_that_was_torn_down_is_not_brought_back(tmp_path: Path, host_uuid: str | None) -> None:
    """Though deckies of the same name are on many other hosts."""
    hosts = [host_uuid, *(f"other-{number}" for number in range(30))]
    async with get_repository(tmp_path / "store.db") as store:
        for host in hosts:
            operation = "teardown" if host == host_uuid else "deploy"
            await store.create_lifecycle(
                {"decky_name": "decky-01", "operation": operation, "host_uuid": host}
            )
        with pytest.raises(InvalidRequest, match="was torn down"):
            await Mutate().payload(Request("decky-01", host_uuid, DOCUMENT, None), store)
        assert await Mutate().payload(Request("decky-01", "other-3", DOCUMENT, None), store)
