"""The lifecycle table with its guards, what each decky runs, and which store this is.

A `decky_lifecycle` that DECNET made (see `repo.migrations.adoption`) is rebuilt as this one.
"""

from importlib import import_module
from types import ModuleType
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

from repo.migrations import adoption
from repo.models.tables import Json, UtcTime

revision = "0001"
down_revision = None

GUARDS = {"sqlite": "repo.sqlite.guards", "postgresql": "repo.postgres.guards"}
OPEN = "status IN ('pending', 'running')"


def upgrade() -> None:
    """Make the tables; rows that DECNET wrote move into the first."""
    guards = import_module(GUARDS[op.get_bind().dialect.name])
    found = adoption.take(op.get_bind())
    _lifecycle_table(guards)
    if found:
        adoption.give_back(op.get_bind())
    _lifecycle_indexes()
    _deployed_table(guards)
    table = op.create_table("decnet_reaper_store", sa.Column("id", sa.String(64), primary_key=True))
    op.bulk_insert(table, [{"id": uuid4().hex}])
    for trigger in guards.triggers():
        op.execute(sa.text(trigger.replace(":", "\\:")))


def _lifecycle_table(guards: ModuleType) -> None:
    op.create_table(
        "decky_lifecycle",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("decky_name", sa.String(128), nullable=False),
        sa.Column("host_uuid", sa.String(64)),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False, server_default="pending"),
        sa.Column("outcome", sa.String(16)),
        sa.Column("error", sa.Text),
        sa.Column("started_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.Column("completed_at", UtcTime),
        sa.Column("payload", Json),
        sa.Column("owner", sa.String(255)),
        sa.Column("claimed_at", UtcTime),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("retry_of", sa.String(64)),
        sa.Column("retry_id", sa.String(64)),
        sa.Column("deliveries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("enqueued_at", UtcTime),
        sa.Column("cancel_requested_at", UtcTime),
        *guards.lifecycle_checks(),
    )


def _lifecycle_indexes() -> None:
    host = sa.text("coalesce(host_uuid, '')")
    cancelled = "cancel_requested_at IS NOT NULL AND status = 'running'"
    indexes: list[tuple[str, list[str | sa.TextClause], str | None, bool]] = [
        ("decky_lifecycle_running", [host, "decky_name"], "status = 'running'", True),
        ("decky_lifecycle_open", ["decky_name", host, "id"], OPEN, False),
        ("decky_lifecycle_stale", ["started_at"], OPEN, False),
        ("decky_lifecycle_cancelled", ["owner"], cancelled, False),
        ("decky_lifecycle_lost", [host], "outcome = 'lost'", False),
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


def _deployed_table(guards: ModuleType) -> None:
    op.create_table(
        "decky_deployed",
        sa.Column("decky_name", sa.String(128), primary_key=True),
        sa.Column("host", sa.String(64), primary_key=True),
        sa.Column("document", Json, nullable=False),
        sa.Column("services", Json, nullable=False),
        sa.Column("lifecycle_id", sa.String(64), nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        *guards.deployed_checks(),
    )
