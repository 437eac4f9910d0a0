"""The database holds every writer to the rules, its own client too."""

from typing import Any

import pytest

from tests.support.store.guard_cases import INSERTS, NOW, ROW, ROWS, UPDATES
from tests.support.store.stores import Refused, Shell


def insert(shell: Shell, **columns: Any) -> None:
    shell.insert(**ROW | columns)


def everything(shell: Shell) -> list[tuple[Any, ...]]:
    return shell.execute("SELECT * FROM decky_lifecycle ORDER BY id")


@pytest.fixture
def rows(shell: Shell) -> list[tuple[Any, ...]]:
    for row in ROWS:
        insert(shell, **row)
    return everything(shell)


@pytest.mark.parametrize("columns", INSERTS)
def test_an_insert_that_is_refused(
    shell: Shell, rows: list[tuple[Any, ...]], columns: dict[str, Any]
) -> None:
    with pytest.raises(Refused):
        insert(shell, **columns)
    assert everything(shell) == rows


@pytest.mark.parametrize(
    ("which", "change", "said"),
    UPDATES,
)
def test_an_update_that_is_refused(
    shell: Shell, rows: list[tuple[Any, ...]], which: str, change: str, said: str
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
