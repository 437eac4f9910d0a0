"""The schema of an SQLite file, brought up by Alembic."""

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from repo.migrations.run import upgrade
from repo.sqlite.connection import SqliteFile


def bring_up(file: SqliteFile) -> None:
    """Migrate in one transaction, and only once however many processes ask at once; blocks.

    Raises:
        SchemaNewer: the file's revision is none that this code knows.
        StoreUnusable: a table of that name is not ours, nor DECNET's.
        sqlite3.Error: what SQLite says.
    """
    engine = create_engine(URL.create("sqlite"), poolclass=NullPool, creator=file.connect)
    event.listen(engine, "begin", _begin)
    try:
        _upgrade_with(engine)
    except DBAPIError as error:
        raise error.orig or error from None


def _upgrade_with(engine: Engine) -> None:
    with engine.connect() as connection:
        # A table that is rebuilt would take the rows along that refer to it; idle in a transaction.
        _execute(connection, "PRAGMA foreign_keys = OFF", "PRAGMA legacy_alter_table = ON")
        with connection.begin():
            upgrade(connection)


def _begin(connection: Connection) -> None:
    _execute(connection, "BEGIN IMMEDIATE")


def _execute(connection: Connection, *statements: str) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101
    for statement in statements:
        driver.execute(statement).close()
