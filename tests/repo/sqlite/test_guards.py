"""What SQLite alone has to refuse: rowids, types that are none, and its verbs that replace rows."""

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from repo.base import BaseRepository
from tests.support.store.guard_cases import INSERTS, ROW, ROWS, UPDATES

OWN: list[dict[str, Any]] = [
    {"started_at": "yesterday"},
    {"started_at": "2026-05-04T10:11:12Z"},
    {"started_at": "2026-05-04 10:11:12 +02:00"},
    {"started_at": "2026-05-04 10:11:12"},
    {"started_at": "2026-02-31 10:11:12.000000"},
    {"started_at": "2026-05-04 24:00:00.000000"},
    {"started_at": "2026-13-01 10:11:12.000000"},
    {"started_at": "0000-01-01 10:11:12.000000"},
    {"started_at": 20260504},
    {"started_at": b"2026-05-04 10:11:12.123456"},
    {"claimed_at": "2026-05-04 12:11:12+02:00"},
    {"attempt": "x"},
    {"deliveries": "often"},
    {"deliveries": 1.5},
    {"owner": b"me"},
    {"updated_at": 5},
    {"payload": "{"},
]
"""Columns whose type or form only SQLite has to be told."""


OWN_UPDATES = [
    ("pending", "rowid = 5"),
    ("pending", "_rowid_ = 3"),
    ("pending", "rowid = 99"),
    ("pending", "started_at = 'tomorrow'"),
]


def insert(shell: sqlite3.Connection, verb: str = "INSERT", **columns: Any) -> None:
    values = ROW | columns
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    shell.execute(f"{verb} INTO decky_lifecycle ({names}) VALUES ({marks})", values)


def everything(shell: sqlite3.Connection) -> list[Any]:
    return shell.execute("SELECT rowid, * FROM decky_lifecycle ORDER BY id").fetchall()


@pytest.fixture
def rows(shell: sqlite3.Connection) -> list[Any]:
    for row in ROWS:
        insert(shell, **row)
    return everything(shell)


@pytest.mark.anyio
async def test_a_row_from_the_shell_is_one_of_ours(
    repository: BaseRepository, shell: sqlite3.Connection
) -> None:
    insert(shell)
    (row,) = await repository.get_lifecycle_by_ids(["new"])
    assert row["started_at"] == row["updated_at"] == "2026-05-04T10:11:12.123456+00:00"
    assert (row["attempt"], row["deliveries"], row["payload"]) == (1, 0, None)
    assert await repository.claim_lifecycle("new", "w") is not None
    assert await repository.sweep_stale_lifecycle(datetime.now(UTC) + timedelta(hours=1), "stale") == 1


@pytest.mark.parametrize(
    ("verb", "columns"),
    [
        *(("INSERT", columns) for columns in OWN),
        *((verb, columns) for verb in ("INSERT OR REPLACE", "REPLACE") for columns in INSERTS + OWN),
    ],
)
def test_an_insert_that_is_refused(
    shell: sqlite3.Connection, rows: list[Any], verb: str, columns: dict[str, Any]
) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(shell, verb, **columns)
    assert everything(shell) == rows


def test_a_row_is_not_replaced_by_its_rowid(shell: sqlite3.Connection, rows: list[Any]) -> None:
    for rowid in (row[0] for row in rows):
        with pytest.raises(sqlite3.IntegrityError, match="taken"):
            insert(shell, "INSERT OR REPLACE", rowid=rowid)
    assert everything(shell) == rows


@pytest.mark.parametrize(
    ("verb", "which", "change"),
    [
        *(("UPDATE", which, change) for which, change in OWN_UPDATES),
        *(
            (verb, which, change)
            for verb in ("UPDATE OR REPLACE", "UPDATE OR FAIL")
            for which, change in [*OWN_UPDATES, *(case[:2] for case in UPDATES)]
        ),
    ],
)
def test_an_update_that_is_refused(
    shell: sqlite3.Connection, rows: list[Any], verb: str, which: str, change: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute(f"{verb} decky_lifecycle SET {change} WHERE id = ?", [which])
    assert everything(shell) == rows


def test_or_ignore_changes_nothing(shell: sqlite3.Connection, rows: list[Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(shell, "INSERT OR IGNORE", id="pending")
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute("UPDATE OR IGNORE decky_lifecycle SET status = 'running' WHERE id = 'waiting'")
    assert everything(shell) == rows


def test_an_upsert_is_refused(shell: sqlite3.Connection, rows: list[Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="taken"):
        shell.execute(
            "INSERT INTO decky_lifecycle (id, decky_name, operation, status, started_at, updated_at)"
            " VALUES ('failed', 'd4', 'deploy', 'pending', '2026-01-01', '2026-01-01')"
            " ON CONFLICT (id) DO UPDATE SET status = 'running', completed_at = NULL, error = NULL"
        )
    assert everything(shell) == rows


@pytest.mark.anyio
async def test_our_own_writer_reports_what_a_guard_refuses_and_goes_on(
    repository: BaseRepository, shell: sqlite3.Connection, rows: list[Any]
) -> None:
    # a row that is older by time of acceptance than the running one, but whose claim the index refuses
    insert(shell, id="0", decky_name="d2")
    assert await repository.claim_lifecycle("0", "w") is None
    assert await repository.claim_lifecycle("pending", "w") is not None
