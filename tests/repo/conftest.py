"""A store of its own for each test: SQLite, unless a folder has its own fixtures."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repo.base import BaseRepository
from repo.factory import get_repository


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its schema, made once: a copy of it opens faster than a migration runs."""
    path = tmp_path_factory.mktemp("made") / "store.db"

    async def make() -> None:
        async with get_repository(db_path=path, synchronous="NORMAL"):
            pass

    asyncio.run(make())
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """A store with its schema, and no row."""
    return Path(shutil.copyfile(made, tmp_path / "store.db"))


@pytest.fixture
async def repository(path: Path) -> AsyncIterator[BaseRepository]:
    async with get_repository(db_path=path) as repository:
        yield repository


@pytest.fixture
def shell(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection to the same file, as the sqlite3 shell would open it: no pragma, no code of ours."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection
