"""A bounded storm; the long ones are run by hand: `python -m tests.storm --minutes 60`."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.storm import checker
from tests.storm.run import storm

pytestmark = pytest.mark.anyio


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_short_storm(kind: str) -> None:
    outcome = await storm(seed=2026, seconds=600, most_steps=20, kind=kind)
    assert outcome.wrong == []
    assert outcome.strayed == []
    assert outcome.steps == 20
    assert outcome.rows > 10


class _Past:
    """A store and notes as a storm could have left them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        columns = (
            "id, decky_name, status, outcome, attempt, retry_of, cancel_requested_at, payload, error, owner"
        )
        with closing(sqlite3.connect(root / "store.db")) as connection, connection:
            connection.executescript(
                f"CREATE TABLE decky_lifecycle ({columns}, completed_at); {checker.HISTORY}"
            )
        self.note("notes")
        self.note("acknowledged")

    def read(self, query: str) -> list[tuple[object, ...]]:
        """What the checker reads."""
        with closing(sqlite3.connect(self.root / "store.db")) as connection, connection:
            return connection.execute(query).fetchall()

    def row(self, lifecycle_id: str, wish: str, *moves: str, outcome: str | None = None) -> None:
        """A row, and what it went through."""
        with closing(sqlite3.connect(self.root / "store.db")) as connection, connection:
            connection.execute(
                "INSERT INTO decky_lifecycle (id, decky_name, status, attempt, payload)"
                " VALUES (?, 'decky-01', 'pending', 1, ?)",
                (lifecycle_id, wish),
            )
            for move in moves:
                connection.execute(
                    "UPDATE decky_lifecycle SET status = ?, outcome = ?, owner = 'w' WHERE id = ?",
                    (move, outcome if move in {"failed", "succeeded"} else None, lifecycle_id),
                )

    def note(self, name: str, **line: object) -> None:
        with (self.root / name).open("a") as notes:
            notes.write(json.dumps(line) + "\n" if line else "")

    def begun(self, wish: str, *what: str) -> None:
        for each in what:
            self.note("notes", what=each, decky="decky-01", wish=wish, pid=1, started="0")


@pytest.fixture
def past(tmp_path: Path) -> _Past:
    return _Past(tmp_path)


def test_a_good_past_is_good(past: _Past) -> None:
    past.row("1", "wish-1", "running", "succeeded", outcome="succeeded")
    past.begun("wish-1", "begin", "end")
    assert checker.verdict(past.read, past.root) == []


def test_the_checker_has_teeth(past: _Past) -> None:
    past.row("1", "wish-1", "running", "failed", "succeeded", outcome="succeeded")
    past.row("2", "wish-2", "running", "failed", outcome="swept")
    past.row("3", "wish-3")
    past.row("4", "wish-4", "running")
    past.row("5", "wish-5", "running")
    past.begun("wish-4", "begin")
    past.begun("wish-2", "begin", "overlap")
    past.note("acknowledged", id="9", wish="wish-9")
    found = "\n".join(checker.verdict(past.read, past.root))
    for expected in (
        "1 went from failed (failed) to succeeded",
        "4 of decky-01 was claimed before 3",
        "5 runs beside another row of decky-01",
        "3 still says pending",
        "2: swept (None), attempt 1, has 0 retries",
        "acknowledged, and gone",
        "two at work at once",
        "out of turn",
        "1 says succeeded, and was not done",
    ):
        assert expected in found


def test_a_process_at_work_for_a_row_that_has_ended_is_seen(past: _Past) -> None:
    past.row("1", "wish-1", "running", "failed", outcome="swept")
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    line = {"what": "begin", "decky": "decky-01", "wish": "wish-1", "pid": os.getpid(), "started": started}
    past.note("notes", **line)
    watch = checker.Watch(past.read, past.root)
    watch.look()
    assert [found.split(", whose")[0] for found in watch.found] == [
        f"process {os.getpid()} is at work for wish-1"
    ]
