"""A Redis server for each test that asks for one."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.queue.redis_server import RedisServer


@pytest.fixture
async def redis_server() -> AsyncIterator[RedisServer]:
    with tempfile.TemporaryDirectory(
        prefix="dr-"
    ) as directory:  # pytest's own paths are too long for a socket
        server = RedisServer(Path(directory))
        await server.start()
        yield server
        server.kill()
