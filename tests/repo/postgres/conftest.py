"""A PostgreSQL store of its own for each test."""

from pathlib import Path

import pytest

import repo.migrations.versions
from tests.support.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def made(postgres: PostgresServer) -> str:
    """A database with the store's schema, made once: a copy of it is there sooner than a migration runs."""
    return with_schema(postgres)


@pytest.fixture
def database(postgres: PostgresServer, made: str) -> str:
    """A database with the store's schema, and no row."""
    return postgres.database(template=made)


def with_schema(server: PostgresServer) -> str:
    """A database of this server with the store's schema; its name."""
    database = server.database()
    directory = Path(repo.migrations.versions.__path__[0])
    server.psql(f"BEGIN; {(directory / 'r0001_postgres.sql').read_text()} COMMIT;"
        "CREATE TABLE decnet_reaper_version (version_num text)", database)
    return database
