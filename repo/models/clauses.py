"""Statements written with SQLAlchemy Core from the tables."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Boolean,
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    String,
    UpdateBase,
    bindparam,
    column,
    engine,
    func,
    text,
)
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql.visitors import iterate, replacement_traverse
from sqlalchemy.types import NullType, TypeEngine

from repo.models.statement import CONDITIONS, Compiled, Dialect, Filtered, Kind, Statement
from repo.models.tables import Json, UtcTime

Clause = UpdateBase | Select[Any] | CompoundSelect[Any]

_KINDS: dict[type[TypeEngine[Any]], Kind] = {
    UtcTime: "time",
    Json: "json",
    Integer: "number",
    Boolean: "flag",
}


def statement(
    clause: Clause | Callable[[Dialect], Clause], *, one_at_a_time: tuple[str, ...] = (), many: bool = False
) -> Statement:
    """A statement from its clause.

    Args:
        clause: or, where dialects differ in more than words, what makes it for one. Its parameters must not
            be called like a column that it sets.
        one_at_a_time: as `Statement` takes it.
        many: whether it does the same to each of many rows, on PostgreSQL, if its values are lists.
    """

    def clause_on(dialect: Dialect) -> Clause:
        return clause(dialect) if callable(clause) else clause

    return Statement(
        lambda dialect: _compiled(clause_on(dialect), dialect),
        one_at_a_time=one_at_a_time,
        of_many=Statement(lambda dialect: _compiled(_of_many(clause_on(dialect)), dialect)) if many else None,
    )


def filtered(
    clause: Select[Any], conditions: Callable[[Dialect], Mapping[str, ColumnElement[bool]]]
) -> Filtered:
    """A read of the rows that meet some of these conditions.

    Args:
        clause: without them, and without a parameter before them.
        conditions: what makes them for a dialect, each by the name of its value.
    """

    def condition(name: str) -> Statement:
        return Statement(lambda dialect: _compiled(conditions(dialect)[name], dialect))

    return Filtered(
        statement(clause.where(text(CONDITIONS))), {name: condition(name) for name in conditions("sqlite")}
    )


def _of_many(clause: Clause) -> Clause:
    """The clause with a column of a table in place of each value, a list for each column."""
    types: dict[str, TypeEngine[Any]] = {
        # a cast to varchar(64) would cut what is longer, where the column refuses it
        bind.key: String() if isinstance(bind.type, String) else bind.type
        for bind in iterate(clause)
        if isinstance(bind, BindParameter) and bind.required and not isinstance(bind.type, NullType)
    }
    lists = [bindparam(name, type_=ARRAY(type_)) for name, type_ in types.items()]
    columns = [column(name, type_) for name, type_ in types.items()]
    given = func.unnest(*lists).table_valued(*columns).render_derived(name="given")

    def replace(element: Any, **_: Any) -> Any:
        return given.c[element.key] if isinstance(element, BindParameter) and element.required else None

    return cast("Clause", replacement_traverse(clause, {}, replace))


def _compiled(clause: Clause | ColumnElement[bool], dialect: Dialect) -> Compiled:
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
