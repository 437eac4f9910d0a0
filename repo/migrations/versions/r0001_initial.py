"""The lifecycle table with its guards, and what each decky runs.

A `decky_lifecycle` that DECNET made (see `repo.migrations.adoption`) is rebuilt as this one.
"""

import sqlalchemy as sa
from alembic import op

from repo.migrations import adoption

revision = "0001"
down_revision = None

OPEN = "status IN ('pending', 'running')"
CANCELLED = "cancel_requested_at IS NOT NULL AND status = 'running'"
SAME_DECKY = "coalesce(host_uuid, '') = coalesce(NEW.host_uuid, '') AND decky_name = NEW.decky_name"
ANOTHER_RUNS = f"EXISTS (SELECT 1 FROM decky_lifecycle WHERE status = 'running' AND {SAME_DECKY})"  # noqa: S608

# What is refused, by kind of statement. It must also hold against OR REPLACE, which would delete the row in
# its way without asking any other trigger or index, by rowid too; NEW.rowid is -1 where none was given.
REFUSED = {
    "UPDATE": {
        "nothing leaves a terminal row": "OLD.status NOT IN ('pending', 'running')",
        "a running row never becomes pending again": "OLD.status = 'running' AND NEW.status = 'pending'",
        "id, decky_name, host_uuid and operation never change": (
            "NEW.id IS NOT OLD.id OR NEW.decky_name IS NOT OLD.decky_name"
            " OR NEW.host_uuid IS NOT OLD.host_uuid OR NEW.operation IS NOT OLD.operation"
            " OR NEW.rowid IS NOT OLD.rowid"
        ),
        "another operation is running on this decky": (
            f"NEW.status = 'running' AND OLD.status <> 'running' AND {ANOTHER_RUNS}"
        ),
    },
    "INSERT": {
        "this id is taken": "EXISTS (SELECT 1 FROM decky_lifecycle WHERE id = NEW.id OR rowid = NEW.rowid)",
        "another operation is running on this decky": f"NEW.status = 'running' AND {ANOTHER_RUNS}",
    },
    "DELETE": {
        "only a terminal row may be deleted": "OLD.status IN ('pending', 'running')",
    },
}


def upgrade() -> None:
    """Make both tables; rows that DECNET wrote move into the first."""
    found = adoption.take(op.get_bind())
    _lifecycle_table()
    if found:
        adoption.give_back(op.get_bind())
    _lifecycle_indexes()
    for statement, rules in REFUSED.items():
        op.execute(_guard(statement, rules))
    op.create_table(
        "decky_deployed",
        sa.Column("decky_name", sa.String(128), primary_key=True),
        sa.Column("host", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("services", sa.Text, nullable=False),
        sa.Column("lifecycle_id", sa.String(64), nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    )


def _guard(statement: str, rules: dict[str, str]) -> str:
    """One trigger for all rules, since each trigger of its own would cost every write some microseconds."""
    broken = " OR ".join(f"({rule})" for rule in rules.values())
    which = " ".join(f"WHEN {rule} THEN RAISE(ABORT, '{message}')" for message, rule in rules.items())
    return (
        f"CREATE TRIGGER decky_lifecycle_{statement.lower()} BEFORE {statement} ON decky_lifecycle"
        f" WHEN {broken} BEGIN SELECT CASE {which} END; END"
    )


def _lifecycle_table() -> None:
    op.create_table(
        "decky_lifecycle",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("decky_name", sa.String(128), nullable=False),
        sa.Column("host_uuid", sa.String(64)),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False, server_default="pending"),
        sa.Column("outcome", sa.String(16)),
        sa.Column("error", sa.Text),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.Column("completed_at", sa.DateTime),
        sa.Column("payload", sa.Text),
        sa.Column("owner", sa.String(255)),
        sa.Column("claimed_at", sa.DateTime),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("retry_of", sa.String(64)),
        sa.Column("retry_id", sa.String(64)),
        sa.Column("deliveries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("enqueued_at", sa.DateTime),
        sa.Column("cancel_requested_at", sa.DateTime),
        sa.CheckConstraint("operation IN ('deploy', 'mutate', 'teardown')", "operation"),
        sa.CheckConstraint("status IN ('pending', 'running', 'succeeded', 'failed')", "status"),
        sa.CheckConstraint(f"(completed_at IS NULL) = ({OPEN})", "completed_at_on_terminal_rows"),
        sa.CheckConstraint(
            "outcome IS NULL OR (outcome = 'succeeded' AND status = 'succeeded')"
            " OR (status = 'failed' AND outcome IN ('failed', 'timed_out', 'cancelled', 'interrupted',"
            " 'swept', 'expired', 'lost'))",
            "outcome_fits_status",
        ),
        sa.CheckConstraint("error IS NULL OR status = 'failed'", "error_on_failed_rows"),
        sa.CheckConstraint(
            "payload IS NULL OR (json_valid(payload) AND json_type(payload) = 'object')", "payload_is_object"
        ),
        *(_is_time(name) for name in ("started_at", "updated_at", "completed_at")),
        *(_is_time(name) for name in ("claimed_at", "enqueued_at", "cancel_requested_at")),
    )


def _is_time(name: str) -> sa.CheckConstraint:
    shaped = f"{name} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND julianday({name}) IS NOT NULL"
    return sa.CheckConstraint(f"{name} IS NULL OR ({shaped})", f"{name}_is_time")


def _lifecycle_indexes() -> None:
    host = sa.text("coalesce(host_uuid, '')")
    indexes: list[tuple[str, list[str | sa.TextClause], str | None, bool]] = [
        ("decky_lifecycle_running", [host, "decky_name"], "status = 'running'", True),
        ("decky_lifecycle_open", ["decky_name", host, "id"], OPEN, False),
        ("decky_lifecycle_stale", ["started_at"], OPEN, False),
        (
            "decky_lifecycle_cancelled",
            ["owner"],
            "cancel_requested_at IS NOT NULL AND status = 'running'",
            False,
        ),
        ("decky_lifecycle_completed", ["completed_at"], "completed_at IS NOT NULL", False),
        # an expression, or SQLite would take it for the open rows of a decky too, to save sorting those few
        ("decky_lifecycle_decky", [sa.text("(decky_name || '')"), "started_at"], None, False),
        ("decky_lifecycle_started", ["started_at"], None, False),
    ]
    for name, columns, only, unique in indexes:
        where = None if only is None else sa.text(only)
        op.create_index(
            name, "decky_lifecycle", columns, unique=unique, sqlite_where=where, postgresql_where=where
        )
