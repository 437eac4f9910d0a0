"""Open rows are found without touching the closed ones: planned and run on many rows.

`pytest -m long` does it on 1,000,000.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from repo.models.statement import Statement
from repo.models.times import to_text
from repo.postgres.session import SET_UP
from repo.repository.statements import history, reads, writes
from tests.support.store.postgres_server import PostgresServer

OPEN_ROWS = 200
MOST_PAGES = 60 + 2 * OPEN_ROWS
"""Pages that a statement may look at: it finds up to all open rows, and goes down some indexes for each."""


@pytest.fixture(scope="module", params=[50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def shell(
    postgres: PostgresServer, postgres_made: str, request: pytest.FixtureRequest
) -> Iterator[psycopg.Connection[Any]]:
    """A session as the store's own, in a database with many closed rows and 200 open ones."""
    closed: int = request.param
    database = postgres.database(template=postgres_made)
    postgres.psql(
        f"""
        INSERT INTO decky_lifecycle (id, decky_name, operation, status, outcome, started_at, updated_at,
                completed_at, payload)
            SELECT '01900000-' || lpad(to_hex(n >> 16), 4, '0') || '-7' || lpad(to_hex(n & 4095), 3, '0')
                    || '-8000-' || lpad(to_hex(n), 12, '0'),
                'd' || n % 5000, 'deploy', 'succeeded', 'succeeded', t, t, t, '{{"compose": {{}}}}'
            FROM generate_series(1, {closed}) n,
                LATERAL (SELECT '{NOW}+00'::timestamptz - ({closed} - n) * interval '1 s' t) x;
        INSERT INTO decky_lifecycle (id, decky_name, operation, status, owner, started_at, updated_at)
            SELECT '01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'd' || n / 2, 'deploy',
                CASE n % 2 WHEN 0 THEN 'running' ELSE 'pending' END, 'me', now(), now()
            FROM generate_series(0, {OPEN_ROWS - 1}) n;
        VACUUM ANALYZE decky_lifecycle;
        """,
        database,
    )
    with postgres.connection(database) as shell:
        shell.execute(SET_UP.format(local="false"))
        yield shell


@pytest.fixture(scope="module")
def new_shell(postgres: PostgresServer, postgres_made: str) -> Iterator[psycopg.Connection[Any]]:
    """The same in a new database, which has no statistics."""
    with postgres.connection(postgres.database(template=postgres_made)) as shell:
        shell.execute(SET_UP.format(local="false"))
        yield shell


KEY, OPEN = "decky_lifecycle_pkey", "decky_lifecycle_open"
DECKY = {"host": "", "decky_name": "d7", "operation": "deploy"}
LONG_AGO, NOW = "2020-01-01 00:00:00.000000", "2026-05-04 10:11:12.123456"
ID = "01910000-0000-7000-8000-000000000007"
ROW = {"row_id": ID, "by_owner": "me", "now": NOW, "seen": 0, "ids": f'["{ID}"]'}
ACCEPTED = DECKY | {
    **{"id": "01920000-0000-7000-8000-000000000000", "host_uuid": None, "status": "pending", "payload": "{}"},
    **{"started_at": NOW, "updated_at": NOW, "attempt": 1, "retry_of": None, "deliveries": 0},
    **{"enqueued_at": None, "horizon": "05000000"},
}
LATELY = datetime.fromisoformat(NOW).replace(tzinfo=UTC) - timedelta(minutes=2)
AROUND = DECKY | {"row_id": ID, "since": to_text(LATELY), "started_at": to_text(LATELY), "most": 5}
BY_COMPLETION, BY_DECKY = {"decky_lifecycle_completed"}, {"decky_lifecycle_decky"}
END = {"expect": "running", "keeps_outcome": 1, "to_status": "failed", "to_outcome": "failed"}

PLANS: list[tuple[str, Statement, dict[str, Any], set[str]]] = [
    ("find_open", reads.FIND_OPEN, DECKY, {OPEN}),
    ("find_open on a host", reads.FIND_OPEN_ON_HOST, DECKY, {OPEN}),
    ("find_next", reads.FIND_NEXT, DECKY, {OPEN}),
    ("find_asked", writes.FIND_ASKED, DECKY | {"payload": "{}"}, {OPEN, KEY}),
    ("find_running", reads.FIND_RUNNING, DECKY, {"decky_lifecycle_running"}),
    ("elsewhere", reads.LIST_OPEN_ELSEWHERE, {"hosts": '["h1"]'}, {OPEN, "decky_lifecycle_stale"}),
    ("lost", reads.LIST_LOST, {"host": "h1"}, {"decky_lifecycle_lost"}),
    ("find_ready", reads.FIND_READY, DECKY | {"most": 10}, {OPEN, "decky_lifecycle_stale"}),
    ("find_newest", writes.FIND_NEWEST, {"horizon": "05000000"}, {KEY}),
    ("list_open", reads.LIST_OPEN, {}, {OPEN, "decky_lifecycle_stale"}),
    ("list_open of a host", reads.LIST_OPEN_ON_HOST, DECKY, {OPEN, "decky_lifecycle_stale"}),
    ("cancelled", reads.FIND_CANCELLED, ROW, {"decky_lifecycle_cancelled"}),
    ("by id", reads.BY_ID, ROW, {KEY}),
    ("by ids", reads.BY_IDS, ROW, {KEY}),
    ("by ids, without payload", reads.BY_IDS_WITHOUT_PAYLOAD, ROW, {KEY}),
    ("state", reads.STATE, ROW, {KEY}),
    ("more", reads.MORE, ROW, {KEY, OPEN}),
    ("create", writes.INSERT, ACCEPTED, {KEY}),
    ("submit", writes.INSERT_UNLESS_ASKED, ACCEPTED, {KEY, OPEN}),
    ("claim", writes.CLAIM, ROW | {"of_decky": "d7", "of_host": ""}, {KEY, OPEN}),
    ("claim of any decky", writes.CLAIM, ROW | {"of_decky": None, "of_host": None}, {KEY, OPEN}),
    ("claimed", reads.CLAIMED, ROW, {KEY, "decky_deployed_pkey"}),
    ("end", writes.END, ROW | END | {"reason": None, "next_id": None}, {KEY}),
    ("update", writes.update_open(frozenset({"error"}), None), ROW | {"error": None}, {KEY}),
    ("cancel, pending", writes.CANCEL_PENDING, ROW | {"reason": None}, {KEY}),
    ("cancel, running", writes.CANCEL_RUNNING, ROW, {KEY}),
    ("delivery", writes.NOTE_DELIVERY, ROW, {KEY}),
    ("sweep", writes.SWEEP, {"older_than": LONG_AGO, "reason": "x", "now": NOW}, {"decky_lifecycle_stale"}),
    ("prune", writes.PRUNE, {"older_than": LONG_AGO, "most": 500}, {"decky_lifecycle_completed", KEY}),
    ("list", reads.LIST.by(()), AROUND, {"decky_lifecycle_started"}),
    ("list one decky", reads.LIST.by({"decky_name"}), AROUND, BY_DECKY),
    ("what ended", history.ENDED.by(()), AROUND, BY_COMPLETION),
    ("what ended lately", history.ENDED.by({"since", "host"}), AROUND, BY_COMPLETION),
    ("what ended of one decky", history.ENDED.by({"decky_name"}), AROUND, BY_DECKY),
    ("a decky's rows up to one", history.UP_TO, AROUND, BY_DECKY),
    ("a decky's rows after one", history.AFTER, AROUND, BY_DECKY),
    ("outcomes by the hour", history.OUTCOMES, {"since": to_text(LATELY)}, BY_COMPLETION),
    ("times by the hour", history.SPREADS, {"since": to_text(LATELY)}, BY_COMPLETION),
]

PLANS += [
    (f"{name}, of many rows", statement.of_many, {name: [value] for name, value in values.items()}, indexes)
    for name, statement, values, indexes in PLANS
    if statement.of_many is not None
]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def plan_of(shell: psycopg.Connection[Any], statement: Statement, values: dict[str, Any]) -> dict[str, Any]:
    compiled = statement.on("postgresql")
    with shell.transaction(force_rollback=True):
        # prepared, and so planned without the values, as the store does it
        given = compiled.parameters(values)
        marks = iter(range(1, len(given) + 1))
        shell.execute(f"PREPARE this AS {re.sub('%s', lambda _: f'${next(marks)}', compiled.text)}")
        these = f"({', '.join(['%s'] * len(given))})" if given else ""
        cursor = psycopg.ClientCursor(shell)
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE this {these}", given)
        (explained,) = cursor.fetchone() or ([],)
        shell.execute("DEALLOCATE this")
    plan: dict[str, Any] = explained[0]["Plan"]
    return plan


@pytest.mark.parametrize(
    ("statement", "values", "indexes"), [p[1:] for p in PLANS], ids=[p[0] for p in PLANS]
)
def test_a_statement_looks_at_few_pages(
    shell: psycopg.Connection[Any], statement: Statement, values: dict[str, Any], indexes: set[str]
) -> None:
    plan = plan_of(shell, statement, values)
    found = list(nodes(plan))
    scanned = [node for node in found if node["Node Type"] == "Seq Scan"]
    assert [node["Relation Name"] for node in scanned if node["Relation Name"] != "decky_deployed"] == []
    assert {node["Index Name"] for node in found if "Index Name" in node} <= indexes
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < MOST_PAGES
    assert not any(node.get("Rows Removed by Filter", 0) > OPEN_ROWS for node in found)


OF_ONE = [plan for plan in PLANS if KEY in plan[3] and plan[3] <= {KEY, OPEN}]


@pytest.mark.parametrize(
    ("statement", "values", "indexes"), [p[1:] for p in OF_ONE], ids=[p[0] for p in OF_ONE]
)
def test_a_row_and_its_decky_are_looked_up_in_a_new_store(
    new_shell: psycopg.Connection[Any], statement: Statement, values: dict[str, Any], indexes: set[str]
) -> None:
    used = [node for node in nodes(plan_of(new_shell, statement, values)) if "Index Name" in node]
    assert {node["Index Name"] for node in used} == indexes
    assert [node for node in used if "Index Cond" not in node] == []
