"""Our models, beside DECNET's and beside what the migrations make."""

import json
import re
import sqlite3
from datetime import UTC, datetime
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge
from pydantic import StringConstraints
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from repo.base import Lifecycle
from repo.errors import InvalidLifecycle
from repo.models.tables import DeckyDeployed, DeckyLifecycle, lifecycle, metadata
from repo.models.validation import check
from repo.repository import prepared
from repo.repository.statements.__main__ import prepared as compiled_now
from tests.support.decnet import store as decnet

_VALUES: tuple[Any, ...] = (
    "x",
    "-x",
    "x" * 65,
    "x" * 129,
    "deploy",
    "running",
    "lost",
    "",
    0,
    1,
    -1,
    {},
    datetime.now(UTC),
)


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
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
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


def test_the_statements_that_were_compiled_ahead_are_those_of_the_models() -> None:
    now = json.loads(json.dumps(compiled_now()))
    assert json.loads(prepared.FILE.read_text()) == now, "type: ./run docs"


@pytest.mark.parametrize("name", DeckyLifecycle.model_fields)
def test_what_is_checked_of_a_column_is_what_its_annotation_says(name: str) -> None:
    hint = get_type_hints(DeckyLifecycle, include_extras=True)[name]
    for value in _VALUES:
        try:
            check(name, value)
        except InvalidLifecycle:
            taken = False
        else:
            taken = True
        assert taken == _may_hold(hint, value), value


def _may_hold(hint: Any, value: object) -> bool:
    if get_origin(hint) in {Union, UnionType}:
        hint, _ = get_args(hint)  # or None
    constraint = None
    if get_origin(hint) is Annotated:
        hint, constraint = get_args(hint)
    match constraint:
        case StringConstraints(pattern=str(pattern)):
            return isinstance(value, str) and re.fullmatch(pattern, value) is not None
        case Ge(ge=int(least)):
            return isinstance(value, int) and value >= least
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    return isinstance(value, get_origin(hint) or hint)
