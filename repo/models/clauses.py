"""Statements written with SQLAlchemy Core from the tables."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Boolean, CompoundSelect, Integer, Select, UpdateBase, engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.types import TypeEngine

from repo.models.statement import Compiled, Dialect, Kind, Statement
from repo.models.tables import Json, UtcTime

Clause = UpdateBase | Select[Any] | CompoundSelect[Any]

_KINDS: dict[type[TypeEngine[Any]], Kind] = {
    UtcTime: "time",
    Json: "json",
    Integer: "number",
    Boolean: "flag",
}


def statement(
    clause: Clause | Callable[[Dialect], Clause], *, one_at_a_time: tuple[str, ...] = ()
) -> Statement:
    """A statement from its clause.

    Args:
        clause: or, where dialects differ in more than words, what makes it for one. Its parameters must not
            be called like a column that it sets.
        one_at_a_time: as `Statement` takes it.
    """

    def compiled(dialect: Dialect) -> Compiled:
        return _compiled(clause(dialect) if callable(clause) else clause, dialect)

    return Statement(compiled, one_at_a_time=one_at_a_time)


def _compiled(clause: Clause, dialect: Dialect) -> Compiled:
    compiled = clause.compile(dialect=_dialect(dialect), compile_kwargs={"render_postcompile": True})
    selected = list(clause.selected_columns) if isinstance(clause, Select | CompoundSelect) else []
    return Compiled(
        text=str(compiled),
        names=compiled.positiontup or [],
        constants={name: value for name, value in compiled.params.items() if value is not None},
        columns=[(column.name, _kind(column.type)) for column in selected],
    )


def _kind(column: TypeEngine[Any]) -> Kind | None:
    return next((kind for type_, kind in _KINDS.items() if isinstance(column, type_)), None)


def _dialect(name: Dialect) -> engine.Dialect:
    if name == "postgresql":
        return PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]
    return SQLiteDialect_pysqlite(paramstyle="qmark")
