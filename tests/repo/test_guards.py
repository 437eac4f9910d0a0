"""The database holds every writer to the rules, the sqlite3 shell too."""

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from repo.base import BaseRepository

NOW = "2026-05-04 10:11:12.123456"
ROW = {
    "id": "new",
    "decky_name": "d9",
    "operation": "deploy",
    "status": "pending",
    "started_at": NOW,
    "updated_at": NOW,
}


def insert(shell: sqlite3.Connection, verb: str = "INSERT", **columns: Any) -> None:
    values = ROW | columns
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    shell.execute(f"{verb} INTO decky_lifecycle ({names}) VALUES ({marks})", values)


def everything(shell: sqlite3.Connection) -> list[Any]:
    return shell.execute("SELECT rowid, * FROM decky_lifecycle ORDER BY id").fetchall()


@pytest.fixture
def rows(shell: sqlite3.Connection) -> list[Any]:
    """One row in each state, and a second open one on the decky that is busy."""
    insert(shell, id="pending", decky_name="d1")
    insert(shell, id="running", decky_name="d2", status="running")
    insert(shell, id="waiting", decky_name="d2")
    insert(shell, id="succeeded", decky_name="d3", status="succeeded", completed_at=NOW)
    insert(shell, id="failed", decky_name="d4", status="failed", completed_at=NOW, error="boom")
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
    "columns",
    [
        {"operation": "destroy"},
        {"operation": None},
        {"status": "lost"},
        {"status": "succeeded"},
        {"status": "failed", "error": "x"},
        {"completed_at": NOW},
        {"status": "running", "completed_at": NOW},
        {"error": "x"},
        {"status": "succeeded", "completed_at": NOW, "error": "x"},
        {"id": None},
        {"decky_name": None},
        {"started_at": None},
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
        {"attempt": 0},
        {"deliveries": "often"},
        {"deliveries": -1},
        {"deliveries": 1.5},
        {"owner": b"me"},
        {"outcome": "succeeded"},
        {"outcome": "swept"},
        {"status": "succeeded", "completed_at": NOW, "outcome": "failed"},
        {"status": "failed", "completed_at": NOW, "outcome": "succeeded"},
        {"status": "failed", "completed_at": NOW, "outcome": "gone"},
        {"updated_at": 5},
        {"payload": "{"},
        {"payload": "[1]"},
        {"id": "pending"},
        {"id": "succeeded"},
        {"status": "running", "decky_name": "d2"},
        {"status": "running", "decky_name": "d2", "host_uuid": ""},
    ],
)
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "REPLACE"])
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
    ("which", "change"),
    [
        ("succeeded", "status = 'running', completed_at = NULL"),
        ("succeeded", "status = 'failed'"),
        ("succeeded", "updated_at = '2027-01-01'"),
        ("succeeded", "status = status"),
        ("failed", "error = 'other'"),
        ("failed", "owner = 'me'"),
        ("running", "status = 'pending'"),
        ("running", "status = 'succeeded'"),
        ("running", "id = 'other'"),
        ("running", "id = 'pending'"),
        ("running", "decky_name = 'd1'"),
        ("running", "host_uuid = 'host-1'"),
        ("running", "operation = 'mutate'"),
        ("pending", "rowid = 5"),
        ("pending", "_rowid_ = 3"),
        ("pending", "rowid = 99"),
        ("waiting", "status = 'running'"),
        ("pending", "error = 'x'"),
        ("pending", "completed_at = started_at"),
        ("pending", "started_at = 'tomorrow'"),
    ],
)
@pytest.mark.parametrize("verb", ["UPDATE", "UPDATE OR REPLACE", "UPDATE OR FAIL"])
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


def test_only_terminal_rows_are_deleted(shell: sqlite3.Connection, rows: list[Any]) -> None:
    for which in ("pending", "running", "waiting"):
        with pytest.raises(sqlite3.IntegrityError, match="terminal"):
            shell.execute("DELETE FROM decky_lifecycle WHERE id = ?", [which])
    with pytest.raises(sqlite3.IntegrityError, match="terminal"):
        shell.execute("DELETE FROM decky_lifecycle")
    assert everything(shell) == rows
    shell.execute("DELETE FROM decky_lifecycle WHERE id IN ('succeeded', 'failed')")
    assert [row[1] for row in everything(shell)] == ["pending", "running", "waiting"]


def test_the_steps_that_are_allowed(shell: sqlite3.Connection, rows: list[Any]) -> None:
    insert(shell, id="other-host", decky_name="d2", host_uuid="host-1", status="running")
    for which, change in [
        ("pending", f"started_at = '{NOW}', status = 'running'"),
        ("pending", f"status = 'succeeded', completed_at = '{NOW}'"),
        ("running", f"status = 'failed', completed_at = '{NOW}', error = 'x'"),
        ("waiting", "status = 'running'"),
    ]:
        changed = shell.execute(f"UPDATE decky_lifecycle SET {change} WHERE id = ?", [which])  # noqa: S608
        assert changed.rowcount == 1


@pytest.mark.anyio
async def test_our_own_writer_reports_what_a_guard_refuses_and_goes_on(
    repository: BaseRepository, shell: sqlite3.Connection, rows: list[Any]
) -> None:
    # a row that is older by time of acceptance than the running one, but whose claim the index refuses
    insert(shell, id="0", decky_name="d2")
    assert await repository.claim_lifecycle("0", "w") is None
    assert await repository.claim_lifecycle("pending", "w") is not None
