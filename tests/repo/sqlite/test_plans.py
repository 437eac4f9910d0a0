"""Open rows are found without touching the closed ones, however many there are."""

import sqlite3
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from repo.repository.statements import reads, writes


def _listing(decky_name: str | None) -> Any:
    return reads.listing(
        statuses=[], outcomes=[], operation=None, decky_name=decky_name, host_uuid=None, since=None, limit=50
    )


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
    ("list", _listing(None), {"decky_lifecycle_started"}),
    ("list one decky", _listing("d1"), {"decky_lifecycle_decky"}),
]


@pytest.mark.parametrize(
    ("statement", "expected"), [case[1:] for case in INDEXES], ids=[case[0] for case in INDEXES]
)
def test_no_statement_scans_the_table(
    shell: sqlite3.Connection,
    statement: Any,
    expected: set[str],
) -> None:
    text = statement.on(sqlite.dialect()).text
    plan = shell.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))
    steps = [step for *_, step in plan]
    for step in steps:
        assert "decky_lifecycle" not in step or "USING" in step, steps
    used = {word for step in steps for word in step.split() if word.startswith("decky_lifecycle_")}
    assert used <= expected, steps
    assert bool(used) == bool(expected), steps
