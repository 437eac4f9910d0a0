"""What the rows went through, kept by the database itself: the auditor's own witness beside the log.

With DECNET_TEST_STORE=postgresql in the environment every fleet of the tests has its store there.
"""

import atexit
import os
import sqlite3
from contextlib import closing
from functools import cache

import psycopg
import pytest

from tests.support.store.postgres_server import PostgresServer

_SQLITE = """
CREATE TABLE history (lifecycle_id TEXT, before TEXT, after TEXT);
CREATE TRIGGER history_insert AFTER INSERT ON decky_lifecycle
    BEGIN INSERT INTO history VALUES (new.id, NULL, new.status); END;
CREATE TRIGGER history_update AFTER UPDATE ON decky_lifecycle
    WHEN old.status <> new.status OR old.completed_at IS NOT NULL
    BEGIN INSERT INTO history VALUES (new.id, old.status, new.status); END;
CREATE TRIGGER history_delete AFTER DELETE ON decky_lifecycle
    BEGIN INSERT INTO history VALUES (old.id, old.status, NULL); END;
"""
_POSTGRES = """
CREATE TABLE history (number bigserial, lifecycle_id text, before text, after text);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO history (lifecycle_id, before, after)
        VALUES (coalesce(NEW.id, OLD.id), OLD.status, NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER history_made AFTER INSERT OR DELETE ON decky_lifecycle FOR EACH ROW
    EXECUTE FUNCTION remember();
CREATE TRIGGER history_update AFTER UPDATE ON decky_lifecycle FOR EACH ROW
    WHEN (OLD.status <> NEW.status OR OLD.completed_at IS NOT NULL) EXECUTE FUNCTION remember();
"""

_STORE = os.environ.get("DECNET_TEST_STORE", "sqlite")

sqlite_only = pytest.mark.skipif(_STORE != "sqlite", reason="about the store's file: there is none")


def on_postgres() -> bool:
    """Whether fleets have their store on PostgreSQL."""
    return _STORE == "postgresql"


def shared_database() -> str:
    """A new database of the one server that all fleets of this session share; its URL."""
    server = shared_server()
    return server.tcp_url(server.database())


@cache
def shared_server() -> PostgresServer:
    """The server of this session, started when it is first asked for."""
    server = PostgresServer()
    atexit.register(server.remove)
    server.start()
    return server


def witness(database: str) -> None:
    """Let the store remember every step from now on."""
    if database.startswith("postgresql://"):
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(_POSTGRES)
        return
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(_SQLITE)


def history(database: str) -> list[tuple[str, str | None, str | None]]:
    """The steps: id, status before, status after, in the order of the commits."""
    if database.startswith("postgresql://"):
        with psycopg.connect(database) as connection:
            return connection.execute(
                "SELECT lifecycle_id, before, after FROM history ORDER BY number"
            ).fetchall()
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT * FROM history ORDER BY rowid").fetchall()
