"""A PostgreSQL store of its own for each test."""

from collections.abc import AsyncIterator

import pytest

from repo.base import BaseRepository
from repo.factory import get_repository
from tests.support.store.postgres_server import PostgresServer


@pytest.fixture
def database(postgres: PostgresServer, postgres_made: str) -> str:
    """A database with the store's schema, and no row."""
    return postgres.database(template=postgres_made)


@pytest.fixture
async def repository(postgres: PostgresServer, database: str) -> AsyncIterator[BaseRepository]:
    async with get_repository(url=postgres.tcp_url(database)) as repository:
        yield repository
