"""The schema of an SQLite file, brought up by Alembic."""

import sqlite3

from sqlalchemy import URL, create_engine, event
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

    def connect() -> sqlite3.Connection:
        connection = file.connect()
        # A table that is rebuilt would take the rows along that refer to it; idle in a transaction.
        connection.execute("PRAGMA foreign_keys = OFF").close()
        connection.execute("PRAGMA legacy_alter_table = ON").close()
        return connection

    engine = create_engine(URL.create("sqlite"), poolclass=NullPool, creator=connect)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            upgrade(connection)
    except DBAPIError as error:
        raise error.orig or error from None
