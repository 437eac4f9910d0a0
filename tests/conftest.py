"""What every test may ask for."""

import os

os.environ["DECNET_REAPER_STRICT_EVENTS"] = "1"

from collections.abc import AsyncIterator

import pytest

from tests.support.fleet import Fleet, running_fleet


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with running_fleet() as fleet:
        yield fleet
