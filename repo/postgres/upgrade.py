"""Runs Alembic on a PostgreSQL database."""

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from repo.errors import StoreUnusable
from repo.migrations import run
from repo.migrations.revision import VERSION_TABLE
from repo.postgres.server import Server

_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(7305808869229538353)"
_OURS = "SELECT to_regclass('decky_lifecycle') IS NULL OR to_regclass(%s) IS NOT NULL"


def upgrade(server: Server) -> None:
    """Migrate in one transaction; blocks. Raises what psycopg does, and as `repo.migrations.run.upgrade`."""
    engine = create_engine("postgresql+psycopg://", poolclass=NullPool, creator=server.connect_blocking)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
            connection.exec_driver_sql(_ONE_AT_A_TIME)
            if connection.exec_driver_sql(_OURS, (VERSION_TABLE,)).scalar() is not True:
                raise StoreUnusable(
                    "its table decky_lifecycle is somebody else's: name another database, or a schema of its"
                    " own with ?options=-csearch_path%3Ddecnet_reaper"
                )
            run.upgrade(connection)
    except DBAPIError as error:
        raise error.orig or error from None
