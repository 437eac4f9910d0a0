"""Our models, beside DECNET's and beside what the migrations make."""

import sqlite3
from datetime import UTC, datetime
from typing import get_type_hints

from sqlalchemy import create_engine, inspect
from sqlmodel import SQLModel

from repo.base import Lifecycle
from repo.models.tables import DeckyDeployed, DeckyLifecycle, lifecycle, metadata
from tests.support.decnet import store as decnet


def test_decnets_model_lives_in_the_same_process() -> None:
    assert decnet.DeckyLifecycle.metadata is SQLModel.metadata
    assert DeckyLifecycle.metadata is not SQLModel.metadata
    now = datetime.now(UTC)
    row = DeckyLifecycle(id="x", decky_name="d1", operation="deploy", started_at=now, updated_at=now)
    theirs = decnet.DeckyLifecycle(decky_name="d1", operation="deploy")
    assert (row.status, row.attempt, row.deliveries) == ("pending", 1, 0)
    assert theirs.status == "pending"
    assert {column.name for column in decnet.TABLE.columns} <= {column.name for column in lifecycle.columns}


def test_a_row_has_the_columns_of_its_model() -> None:
    assert [*get_type_hints(Lifecycle)] == [*DeckyLifecycle.model_fields]


def test_every_column_is_described() -> None:
    for model in (DeckyLifecycle, DeckyDeployed):
        assert all(field.description for field in model.model_fields.values())


def test_the_migrations_make_what_the_models_say(path: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    made = inspect(engine)
    for table in metadata.tables.values():
        columns = made.get_columns(table.name)
        assert [(column["name"], column["nullable"]) for column in columns] == [
            (column.name, column.nullable) for column in table.columns
        ]
        for column in columns:
            assert str(column["type"]) == str(
                table.c[column["name"]].type.dialect_impl(made.dialect).compile(made.dialect)
            )


def test_defaults_are_the_databases_too(shell: sqlite3.Connection) -> None:
    shell.execute(
        "INSERT INTO decky_lifecycle (id, decky_name, operation, started_at, updated_at) VALUES"
        " ('x', 'd1', 'deploy', '2026-05-04 10:11:12.123456', '2026-05-04 10:11:12.123456')"
    )
    found = shell.execute("SELECT status, attempt, deliveries FROM decky_lifecycle").fetchone()
    fields = DeckyLifecycle.model_fields
    assert found == tuple(fields[name].default for name in ("status", "attempt", "deliveries"))
