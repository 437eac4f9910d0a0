"""Open rows are found without touching the closed ones, however many there are."""

import sqlite3
from typing import Any

import pytest

from repo.repository.statements import history, reads, writes

BY_COMPLETION, BY_DECKY = {"decky_lifecycle_completed"}, {"decky_lifecycle_decky"}
BY_OPEN_DECKY = {"decky_lifecycle_open"}
PARTIAL = {*BY_OPEN_DECKY, "decky_lifecycle_stale"}
INDEXES: list[tuple[str, Any, set[str]]] = [
    ("find_open", reads.FIND_OPEN, BY_OPEN_DECKY),
    ("find_open on a host", reads.FIND_OPEN_ON_HOST, BY_OPEN_DECKY),
    ("find_next", reads.FIND_NEXT, BY_OPEN_DECKY),
    ("find_asked", writes.FIND_ASKED, BY_OPEN_DECKY),
    ("payloads", reads.DOCUMENTS, BY_OPEN_DECKY),
    ("list_open", reads.LIST_OPEN, PARTIAL),
    ("list_open elsewhere", reads.LIST_OPEN_ELSEWHERE, PARTIAL),
    ("lost", reads.LIST_LOST, {"decky_lifecycle_lost"}),
    ("sweep", writes.SWEEP, {"decky_lifecycle_stale"}),
    ("cancelled", reads.FIND_CANCELLED, {"decky_lifecycle_cancelled"}),
    ("prune", writes.PRUNE, {"decky_lifecycle_completed"}),
    ("claim", writes.CLAIM, BY_OPEN_DECKY),
    ("submit", writes.INSERT_UNLESS_ASKED, BY_OPEN_DECKY),
    ("end", writes.END, set()),
    ("by id", reads.BY_ID, set()),
    ("claimed", reads.CLAIMED, set()),
    ("by ids", reads.BY_IDS, set()),
    ("by ids, without payload", reads.BY_IDS_WITHOUT_PAYLOAD, set()),
    ("list", reads.LIST.by(()), {"decky_lifecycle_started"}),
    ("list one decky", reads.LIST.by({"decky_name"}), BY_DECKY),
    ("what ended", history.ENDED.by(()), BY_COMPLETION),
    ("what ended in a day, with an error", history.ENDED.by({"since", "error"}), BY_COMPLETION),
    ("what ended on a host", history.ENDED.by({"since", "host"}), BY_COMPLETION),
    ("what ended of one decky", history.ENDED.by({"since", "decky_name"}), BY_DECKY),
    ("a decky's rows up to one", history.UP_TO, BY_DECKY),
    ("a decky's rows after one", history.AFTER, BY_DECKY),
    ("outcomes by the hour", history.OUTCOMES, BY_COMPLETION),
    ("times by the hour", history.SPREADS, BY_COMPLETION),
]


@pytest.mark.parametrize(
    ("statement", "expected"), [case[1:] for case in INDEXES], ids=[case[0] for case in INDEXES]
)
def test_no_statement_scans_the_table(
    shell: sqlite3.Connection,
    statement: Any,
    expected: set[str],
) -> None:
    text = statement.on("sqlite").text
    plan = shell.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))
    steps = [step for *_, step in plan]
    for step in steps:
        assert "decky_lifecycle" not in step or "USING" in step, steps
    used = {word for step in steps for word in step.split() if word.startswith("decky_lifecycle_")}
    assert used <= expected, steps
    assert bool(used) == bool(expected), steps
