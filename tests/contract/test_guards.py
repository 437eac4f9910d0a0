"""The database holds every writer to the rules, its own client too."""

from typing import Any

import pytest

from tests.support.store.stores import Refused, Shell

NOW = "2026-05-04 10:11:12.123456"
ROW = {
    "id": "new",
    "decky_name": "d9",
    "operation": "deploy",
    "status": "pending",
    "started_at": NOW,
    "updated_at": NOW,
}


def insert(shell: Shell, **columns: Any) -> None:
    shell.insert(**ROW | columns)


def everything(shell: Shell) -> list[tuple[Any, ...]]:
    return shell.execute("SELECT * FROM decky_lifecycle ORDER BY id")


@pytest.fixture
def rows(shell: Shell) -> list[tuple[Any, ...]]:
    """One row in each state, and a second open one on the decky that is busy."""
    insert(shell, id="pending", decky_name="d1")
    insert(shell, id="running", decky_name="d2", status="running")
    insert(shell, id="waiting", decky_name="d2")
    insert(shell, id="succeeded", decky_name="d3", status="succeeded", completed_at=NOW)
    insert(shell, id="failed", decky_name="d4", status="failed", completed_at=NOW, error="boom")
    return everything(shell)


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
        {"payload": "[1]"},
        {"attempt": 0},
        {"deliveries": -1},
        {"outcome": "succeeded"},
        {"outcome": "swept"},
        {"status": "succeeded", "completed_at": NOW, "outcome": "failed"},
        {"status": "failed", "completed_at": NOW, "outcome": "succeeded"},
        {"status": "failed", "completed_at": NOW, "outcome": "gone"},
        {"id": "pending"},
        {"id": "succeeded"},
        {"status": "running", "decky_name": "d2"},
        {"status": "running", "decky_name": "d2", "host_uuid": ""},
    ],
)
def test_an_insert_that_is_refused(
    shell: Shell, rows: list[tuple[Any, ...]], columns: dict[str, Any]
) -> None:
    with pytest.raises(Refused):
        insert(shell, **columns)
    assert everything(shell) == rows


@pytest.mark.parametrize(
    ("which", "change", "said"),
    [
        ("succeeded", "status = 'running', completed_at = NULL", "nothing leaves a terminal row"),
        ("succeeded", "status = 'failed'", "nothing leaves a terminal row"),
        ("succeeded", "status = status", "nothing leaves a terminal row"),
        ("failed", "error = 'other'", "nothing leaves a terminal row"),
        ("failed", "owner = 'me'", "nothing leaves a terminal row"),
        ("failed", "retry_id = 'me'", "nothing leaves a terminal row"),
        ("running", "status = 'pending'", "a running row never becomes pending again"),
        ("running", "status = 'succeeded'", None),
        ("running", "id = 'other'", "never change"),
        ("running", "id = 'pending'", "never change"),
        ("running", "decky_name = 'd1'", "never change"),
        ("running", "host_uuid = 'host-1'", "never change"),
        ("running", "operation = 'mutate'", "never change"),
        (
            "waiting",
            "status = 'running'",
            "another operation is running on this decky|decky_lifecycle_running",
        ),
        ("pending", "error = 'x'", None),
        ("pending", "completed_at = started_at", None),
    ],
)
def test_an_update_that_is_refused(
    shell: Shell, rows: list[tuple[Any, ...]], which: str, change: str, said: str | None
) -> None:
    with pytest.raises(Refused, match=said):
        shell.execute(f"UPDATE decky_lifecycle SET {change} WHERE id = :id", {"id": which})  # noqa: S608
    assert everything(shell) == rows


def test_only_terminal_rows_are_deleted(shell: Shell, rows: list[tuple[Any, ...]]) -> None:
    for which in ("pending", "running", "waiting"):
        with pytest.raises(Refused, match="only a terminal row may be deleted"):
            shell.execute("DELETE FROM decky_lifecycle WHERE id = :id", {"id": which})
    with pytest.raises(Refused, match="terminal"):
        shell.execute("DELETE FROM decky_lifecycle")
    assert everything(shell) == rows
    shell.execute("DELETE FROM decky_lifecycle WHERE id IN ('succeeded', 'failed')")
    assert shell.execute("SELECT id FROM decky_lifecycle ORDER BY id") == [
        ("pending",),
        ("running",),
        ("waiting",),
    ]


def test_the_steps_that_are_allowed(shell: Shell, rows: list[tuple[Any, ...]]) -> None:
    insert(shell, id="other-host", decky_name="d2", host_uuid="host-1", status="running")
    for which, change in [
        ("pending", f"started_at = '{NOW}', status = 'running'"),
        ("running", "status = 'running', owner = 'me'"),
        ("pending", f"status = 'succeeded', completed_at = '{NOW}', outcome = 'succeeded'"),
        ("running", f"status = 'failed', completed_at = '{NOW}', error = 'x'"),
        ("waiting", "status = 'running'"),
    ]:
        shell.execute(f"UPDATE decky_lifecycle SET {change} WHERE id = :id", {"id": which})  # noqa: S608
    assert dict(shell.execute("SELECT id, status FROM decky_lifecycle")) == {
        "failed": "failed",
        "other-host": "running",
        "pending": "succeeded",
        "running": "failed",
        "succeeded": "succeeded",
        "waiting": "running",
    }
