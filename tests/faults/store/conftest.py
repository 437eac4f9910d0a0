"""A fleet of several hosts: the master, whose reaper looks at the others."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fleet import Fleet, running_fleet
from tests.support.store.postgres_server import PostgresServer


@pytest.fixture
async def master(server: PostgresServer) -> AsyncIterator[Fleet]:
    """The master's side; its reaper is impatient."""
    url = server.tcp_url(server.database())
    async with running_fleet(database=url, host_lost_after="2s", reap_interval="500ms") as fleet:
        yield fleet
