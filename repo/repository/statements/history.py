"""Statements of those who look back. All but the search in errors are ranges of an index."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    String,
    bindparam,
    case,
    cast,
    extract,
    func,
    literal_column,
    select,
    tuple_,
    type_coerce,
    union_all,
)
from sqlalchemy.types import NullType

from repo.models.clauses import filtered, statement
from repo.models.statement import Dialect
from repo.models.tables import lifecycle
from repo.repository.statements.conditions import (
    any_row_of,
    matching,
    on_host,
    without_payload,
)

_t = lifecycle.c
_since = _t.completed_at >= bindparam("since", type_=_t.completed_at.type)


ENDED = filtered(
    select(*without_payload)
    .where(_t.completed_at.is_not(None))
    .order_by(_t.completed_at.desc(), _t.id.desc())
    .limit(bindparam("most")),
    lambda dialect: matching(_t.completed_at, dialect),
)
"""Terminal rows without payload, the latest end first."""

_place = tuple_(_t.started_at, _t.id)
_of_decky = select(lifecycle).where(any_row_of == bindparam("decky_name"), on_host)
_at = tuple_(bindparam("started_at", type_=_t.started_at.type), bindparam("row_id", type_=_t.id.type))
UP_TO = statement(
    _of_decky.where(_place <= _at).order_by(_t.started_at.desc(), _t.id.desc()).limit(bindparam("most"))
)
"""A row and those of its decky before it, the newest first."""
AFTER = statement(_of_decky.where(_place > _at).order_by(_t.started_at, _t.id).limit(bindparam("most")))
"""Those of its decky after it."""


def _hour(dialect: Dialect) -> ColumnElement[str]:
    if dialect == "postgresql":
        return func.to_char(func.timezone("UTC", _t.completed_at), "YYYY-MM-DD HH24", type_=String)
    return func.substr(_t.completed_at, 1, 13, type_=String)


def _seconds(dialect: Dialect, start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[float]:
    if dialect == "postgresql":
        return cast(extract("epoch", end), Float) - cast(extract("epoch", start), Float)
    return (func.julianday(end, type_=Float) - func.julianday(start, type_=Float)) * 86400


def _as_it_is(number: ColumnElement[Any]) -> ColumnElement[Any]:
    """The driver's own float, since SQLAlchemy would convert it by a type that it doesn't know here."""
    return type_coerce(number, NullType())


def _outcomes(dialect: Dialect) -> Select[Any]:
    hour, outcome = _hour(dialect).label("hour"), func.coalesce(_t.outcome, _t.status).label("outcome")
    columns: list[ColumnElement[Any]] = [hour, outcome, func.count().label("rows")]
    return select(*columns).where(_since).group_by(literal_column("1"), literal_column("2"))


def _spread(dialect: Dialect, what: str, start: ColumnElement[Any], end: ColumnElement[Any]) -> Select[Any]:
    taken = (
        select(_hour(dialect).label("hour"), _seconds(dialect, start, end).label("seconds"))
        .where(_since, _t.claimed_at.is_not(None))
        .subquery()
    )
    ranked = select(
        taken,
        func.row_number().over(partition_by=taken.c.hour, order_by=taken.c.seconds).label("rank"),
        func.count().over(partition_by=taken.c.hour).label("all"),
    ).subquery()
    rank, count, seconds = ranked.c.rank, ranked.c["all"], ranked.c.seconds
    return select(
        ranked.c.hour,
        literal_column(f"'{what}'", String).label("what"),
        _as_it_is(func.min(case((rank * 100 >= count * 50, seconds)))).label("p50"),
        _as_it_is(func.min(case((rank * 100 >= count * 99, seconds)))).label("p99"),
    ).group_by(ranked.c.hour)


OUTCOMES = statement(_outcomes)
SPREADS = statement(
    lambda dialect: union_all(
        _spread(dialect, "wait", _t.started_at, _t.claimed_at),
        _spread(dialect, "took", _t.claimed_at, _t.completed_at),
    )
)
