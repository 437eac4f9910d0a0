"""The schema of a PostgreSQL database, brought up by Alembic."""

import asyncio

import psycopg

from repo.errors import StoreError, StoreUnusable
from repo.migrations.revision import HEAD, VERSION_TABLE
from repo.postgres.errors import explained
from repo.postgres.server import Connection, Server
from repo.postgres.session import Session


async def schema_of(connection: Connection) -> str | None:
    """The revision that the database says it has, or None."""
    found = await (await connection.execute("SELECT to_regclass(%s)", (VERSION_TABLE,))).fetchone()
    if found == (None,):
        return None
    rows = await (await connection.execute(f"SELECT version_num FROM {VERSION_TABLE}")).fetchall()  # noqa: S608
    return str(rows[0][0]) if rows else None


async def bring_up(server: Server, session: Session, create: bool) -> None:
    """Migrate where it is needed: in one transaction, and only once however many processes ask at once.

    Args:
        server: where the database is.
        session: to look at it.
        create: whether to make the tables where there are none.

    Raises:
        SchemaNewer: the database's revision is none that this code knows.
        StoreUnusable: its tables are somebody else's, it has none and shall get none, or this role may not.
    """
    found = await schema_of(await session.connection())
    if found == HEAD:
        return
    if found is None and not create:
        raise StoreUnusable("no store is there; to have it made, type: decnet-reaper doctor --create")
    from repo.postgres.upgrade import upgrade  # SQLAlchemy and the tables: 0.3 s, for a new store

    try:
        await asyncio.to_thread(upgrade, server)
    except psycopg.errors.InsufficientPrivilege as error:
        raise _may_not(server, found, error) from None


def _may_not(server: Server, found: str | None, error: psycopg.Error) -> StoreError:
    if found is None:
        return explained(error, server.name)
    return StoreUnusable(
        f"its schema is {found}, this release needs {HEAD}, and this role may not bring it up: run"
        " `decnet-reaper doctor` once as the tables' owner"
    )
