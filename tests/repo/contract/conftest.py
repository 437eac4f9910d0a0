"""Every test of the contract runs on every engine."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from repo.base import BaseRepository
from repo.factory import get_repository
from tests.support.store.postgres_server import PostgresServer
from tests.support.store.stores import PostgresStore, Shell, SqliteStore, Store

ENGINES = ("sqlite", "postgresql")


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with its schema, and no row."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        return PostgresStore(server.tcp_url(server.database(request.getfixturevalue("postgres_made"))))
    made = request.getfixturevalue("made")
    return SqliteStore(Path(shutil.copyfile(made, tmp_path / "store.db")))


@pytest.fixture
def url(store: Store) -> str:
    return store.url


@pytest.fixture
async def repository(store: Store) -> AsyncIterator[BaseRepository]:
    async with get_repository(url=store.url) as repository:
        yield repository


@pytest.fixture
def shell(store: Store) -> Iterator[Shell]:
    with store.shell() as shell:
        yield shell
