"""A PostgreSQL store of its own for each test."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from repo.base import BaseRepository
from repo.factory import get_repository
from tests.support.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def made(postgres: PostgresServer) -> str:
    """A database with the store's schema, made once: a copy of it is there sooner than a migration runs."""
    return with_schema(postgres)


@pytest.fixture
def database(postgres: PostgresServer, made: str) -> str:
    """A database with the store's schema, and no row."""
    return postgres.database(template=made)


@pytest.fixture
async def repository(postgres: PostgresServer, database: str) -> AsyncIterator[BaseRepository]:
    async with get_repository(url=postgres.tcp_url(database)) as repository:
        yield repository


def with_schema(server: PostgresServer) -> str:
    """A database of this server with the store's schema; its name."""
    database = server.database()

    async def make() -> None:
        async with get_repository(url=server.url(database)):
            pass

    thread = threading.Thread(target=asyncio.run, args=[make()])  # whether or not a loop runs here
    thread.start()
    thread.join()
    return database
