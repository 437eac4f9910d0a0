"""What every test may ask for."""

import os

os.environ["DECNET_REAPER_STRICT_EVENTS"] = "1"
os.environ.pop("PYTHONUNBUFFERED", None)  # set in many a container; it hides what a user's Python does

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import needs
from tests.support.fleet import Fleet, running_fleet
from tests.support.queue.redis_server import RedisServer
from tests.support.store.postgres_server import PostgresServer
from tests.support.store.stores import made
from tests.support.store.witness import shared_server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.getreports("skipped")
    if told := needs.summary(report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)):
        terminalreporter.write_line(told)


# An example that a busy machine holds up for 200 ms is no failure.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    elsewhere = "on_postgres" in request.fixturenames
    async with running_fleet(
        **({"database": request.getfixturevalue("on_postgres")} if elsewhere else {})
    ) as fleet:
        yield fleet


@pytest.fixture
async def redis_server() -> AsyncIterator[RedisServer]:
    """A Redis server of a test's own."""
    with tempfile.TemporaryDirectory(
        prefix="dr-"
    ) as directory:  # pytest's own paths are too long for a socket
        server = RedisServer(Path(directory))
        await server.start()
        yield server
        server.kill()


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """A PostgreSQL server of this session's own; tests that stop it or fill it start one of theirs."""
    return shared_server()


@pytest.fixture(scope="session")
def postgres_made(postgres: PostgresServer) -> str:
    """A database with the store's schema, made once: a copy of it is there sooner than a migration runs."""
    return made(postgres)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of a module's own, which its tests may stop, and whose roles are theirs."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def on_postgres(server: PostgresServer) -> str:
    """Whoever asks for this has the store of the `fleet` on that server; its URL."""
    return server.tcp_url(server.database())
