"""A file that DECNET made becomes ours in place, and no row is lost."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from repo.errors import StoreUnusable
from repo.factory import get_repository

pytestmark = pytest.mark.anyio

# as SQLModel makes it from DECNET's class
DECNET = """
CREATE TABLE decky_lifecycle (
    id VARCHAR NOT NULL, decky_name VARCHAR NOT NULL, host_uuid VARCHAR, operation VARCHAR NOT NULL,
    status VARCHAR NOT NULL, error TEXT, started_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
    completed_at DATETIME, PRIMARY KEY (id));
CREATE INDEX ix_decky_lifecycle_decky_name ON decky_lifecycle (decky_name);
CREATE INDEX ix_decky_lifecycle_host_uuid ON decky_lifecycle (host_uuid);
CREATE INDEX ix_decky_lifecycle_operation ON decky_lifecycle (operation);
CREATE INDEX ix_decky_lifecycle_status ON decky_lifecycle (status);
CREATE TABLE users (name TEXT);
INSERT INTO users VALUES ('admin');
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);
INSERT INTO alembic_version VALUES ('decnet-17');
CREATE VIEW open_rows AS SELECT id FROM decky_lifecycle WHERE status IN ('pending', 'running');
"""
START, UPDATE, END = "2026-05-04 10:11:12.123456", "2026-05-04 10:11:13", "2026-05-04 10:11:14.000001"


@pytest.fixture
def decnet(tmp_path: Path) -> Path:
    path = tmp_path / "decnet.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(DECNET)
    return path


def write(path: Path, *rows: tuple[Any, ...]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO decky_lifecycle VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


async def adopted(path: Path) -> dict[str, dict[str, Any]]:
    async with get_repository(db_path=path) as repository:
        return {row["id"]: {**row} for row in await repository.list_lifecycles(limit=10_000)}


async def test_rows_come_over_as_they_were(decnet: Path) -> None:
    write(
        decnet,
        ("a", "d1", None, "deploy", "succeeded", None, START, UPDATE, END),
        ("b", "d1", "host-1", "mutate", "failed", "boom", START, UPDATE, END),
        ("c", "d1", None, "deploy", "running", None, START, UPDATE, None),
        ("d", "d1", None, "deploy", "pending", None, START, UPDATE, None),
    )
    rows = await adopted(decnet)
    assert {key: row["status"] for key, row in rows.items()} == {
        "a": "succeeded",
        "b": "failed",
        "c": "running",
        "d": "pending",
    }
    assert rows["a"]["started_at"] == "2026-05-04T10:11:12.123456+00:00"
    assert rows["a"]["updated_at"] == "2026-05-04T10:11:13.000000+00:00"
    assert rows["a"]["completed_at"] == "2026-05-04T10:11:14.000001+00:00"
    assert (rows["b"]["error"], rows["b"]["host_uuid"], rows["b"]["attempt"]) == ("boom", "host-1", 1)
    with closing(sqlite3.connect(decnet)) as connection:
        assert connection.execute("SELECT name FROM users").fetchall() == [("admin",)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("decnet-17",)]
        assert connection.execute("SELECT id FROM open_rows ORDER BY id").fetchall() == [("c",), ("d",)]
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE decky_lifecycle SET status = 'pending' WHERE id = 'a'")
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert await adopted(decnet) == rows


async def test_what_the_rules_refuse_is_brought_into_shape(decnet: Path) -> None:
    write(
        decnet,
        ("no-end", "d1", None, "deploy", "succeeded", "noise", START, UPDATE, None),
        ("ended-open", "d2", None, "deploy", "pending", "noise", START, UPDATE, END),
        ("old", "d3", None, "deploy", "running", None, START, UPDATE, None),
        ("newer", "d3", None, "deploy", "running", None, END, UPDATE, None),
        ("oldest", "d3", "", "mutate", "running", "noise", "2026-01-01 00:00:00", UPDATE, None),
        ("elsewhere", "d3", "host-1", "deploy", "running", None, START, UPDATE, None),
    )
    rows = await adopted(decnet)
    assert rows["no-end"]["completed_at"] == rows["no-end"]["updated_at"]
    assert rows["no-end"]["error"] is None
    assert (rows["ended-open"]["error"], rows["ended-open"]["completed_at"]) == (None, None)
    assert {key for key, row in rows.items() if row["status"] == "running"} == {"newer", "elsewhere"}
    for interrupted in ("old", "oldest"):
        assert rows[interrupted]["error"] == "master restarted during operation"
        assert rows[interrupted]["completed_at"] is not None


async def test_many_rows(decnet: Path) -> None:
    write(
        decnet,
        *((f"{n}", f"d{n}", None, "deploy", "failed", None, START, UPDATE, END) for n in range(12_000)),
    )
    async with get_repository(db_path=decnet) as repository:
        rows = await repository.get_lifecycle_by_ids(str(n) for n in range(12_000))
    assert len(rows) == 12_000


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (("x", "d1", None, "deploy", "cancelled", None, START, UPDATE, END), "cancelled"),
        (("x", "d1", None, "destroy", "failed", None, START, UPDATE, END), "destroy"),
        (("x", "d1", None, "deploy", "pending", None, "yesterday", UPDATE, None), "yesterday"),
        (("x", "d1", None, "deploy", "pending", None, 1714800000, UPDATE, None), "1714800000"),
        (("x", "d 1", None, "deploy", "pending", None, START, UPDATE, None), "decky_name 'd 1'"),
        (("x", "d@1", None, "deploy", "pending", None, START, UPDATE, None), "decky_name 'd@1'"),
        (("x", "-d1", None, "deploy", "pending", None, START, UPDATE, None), "decky_name '-d1'"),
        (("x", "d" * 129, None, "deploy", "pending", None, START, UPDATE, None), "decky_name 'ddd"),
        (("x", "d1", "a/b", "deploy", "pending", None, START, UPDATE, None), "host_uuid 'a/b'"),
        (("x", "d1", "h" * 65, "deploy", "failed", "e", START, UPDATE, END), "host_uuid 'hhh"),
    ],
)
async def test_a_row_that_nobody_understands_changes_nothing(
    decnet: Path, row: tuple[Any, ...], named: str
) -> None:
    write(decnet, ("a", "d1", None, "deploy", "succeeded", None, START, UPDATE, END), row)
    before = dump(decnet)
    with pytest.raises(StoreUnusable, match=named) as refusal:
        await adopted(decnet)
    assert "row x" in str(refusal.value)
    assert str(decnet) in str(refusal.value)
    assert dump(decnet) == before


async def test_somebody_elses_table_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE decky_lifecycle (id TEXT, colour TEXT)")
    before = dump(path)
    with pytest.raises(StoreUnusable, match="colour"):
        await adopted(path)
    assert dump(path) == before


async def test_a_database_without_the_table_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.execute("INSERT INTO users VALUES ('admin')")
    assert await adopted(path) == {}
    assert "INSERT INTO \"users\" VALUES('admin');" in dump(path)


async def test_several_that_open_it_at_once_adopt_it_once(decnet: Path) -> None:
    write(decnet, ("a", "d1", None, "deploy", "succeeded", None, START, UPDATE, END))
    found = await asyncio.gather(*(adopted(decnet) for _ in range(4)))
    assert [list(rows) for rows in found] == [["a"]] * 4
