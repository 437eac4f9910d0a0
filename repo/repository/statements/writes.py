"""Statements that write, and what they look at to say why they were refused.

Parameters that name a row are called `row_id`, since `id` would be taken for a value to set.
"""

from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from repo.lifecycle import HostState
from repo.models.clauses import Clause, statement
from repo.models.statement import Dialect, Statement
from repo.models.tables import deployed, lifecycle
from repo.repository.statements.conditions import (
    ONE,
    OPEN,
    TERMINAL,
    first_in_line,
    host,
    host_is,
    is_open,
    is_pending,
    is_running,
    is_version_7,
    on_host,
    same_decky,
    this_row,
)

_t = lifecycle.c
_d = deployed.c

_now = bindparam("now", type_=_t.updated_at.type)
_owner = bindparam("by_owner", type_=_t.owner.type)
_reason = bindparam("reason", type_=_t.error.type)
_next_id = bindparam("next_id", type_=_t.retry_id.type)

# ---------------------------------------------------------------- accepting

_INSERTED = [
    *("id", "decky_name", "host_uuid", "operation", "status", "started_at", "updated_at"),
    *("payload", "attempt", "retry_of", "deliveries", "enqueued_at"),
]
_given = {name: bindparam(name, type_=_t[name].type) for name in _INSERTED}

_newer = lifecycle.alias("newer")


def _is_newest(dialect: Dialect) -> ColumnElement[bool]:
    """No id of version 7 up to `horizon` is greater. (A row that DECNET wrote has one of version 4.)"""
    ahead = and_(_newer.c.id > _given["id"], _newer.c.id < bindparam("horizon"))
    return ~exists(select(ONE).select_from(_newer).where(ahead, is_version_7(_newer.c.id, dialect)))


INSERT = statement(
    lambda dialect: insert(lifecycle).from_select(
        _INSERTED, select(*_given.values()).where(_is_newest(dialect))
    ),
    many=True,
)
"""A row as `validation.accepted` returns it, with `horizon`."""

_newest = (
    select(_t.operation, _t.payload, _t.cancel_requested_at)
    .where(OPEN, same_decky)
    .order_by(_t.id.desc())
    .limit(1)
    .correlate_except(lifecycle)
    .subquery("newest")
)


def _asks_for_it(row: Any) -> ColumnElement[bool]:
    return and_(
        row.operation == bindparam("operation"),
        row.payload.is_not_distinct_from(_given["payload"]),
        row.cancel_requested_at.is_(None),
    )


INSERT_UNLESS_ASKED = statement(
    lambda dialect: insert(lifecycle).from_select(
        _INSERTED,
        select(*_given.values()).where(
            _is_newest(dialect), ~exists(select(ONE).select_from(_newest).where(_asks_for_it(_newest.c)))
        ),
    ),
    one_at_a_time=("host", "decky_name"),
    many=True,
)
"""The same, with `host`, unless the decky's newest open row asks for it already and nobody cancelled that."""

FIND_ASKED = statement(
    select(_t.id)
    .where(_t.id.in_(select(_t.id).where(OPEN, same_decky).order_by(_t.id.desc()).limit(1)))
    .where(_asks_for_it(_t))
)
FIND_NEWEST = statement(
    lambda dialect: (
        select(_t.id)
        .where(_t.id < bindparam("horizon"), is_version_7(_t.id, dialect))
        .order_by(_t.id.desc())
        .limit(1)
    )
)


def _again(attempt: ColumnElement[int]) -> Statement:
    copied = {
        "id": _next_id,
        "status": literal_column("'pending'"),
        "started_at": _now,
        "updated_at": _now,
        "attempt": attempt,
        "retry_of": _t.id,
        "deliveries": ONE,
        "enqueued_at": _now,
    }
    columns: list[Any] = [copied.get(name, _t[name]) for name in _INSERTED]
    return statement(insert(lifecycle).from_select(_INSERTED, select(*columns).where(this_row)), many=True)


RETRY = _again(_t.attempt + ONE)
"""The same request again, delivered once: whoever ends a row enqueues its retry right away."""

AGAIN = _again(ONE)
"""The same, as an operator asks for it: a first attempt."""

# ---------------------------------------------------------------- changing one row


@cache
def update_open(names: frozenset[str], status: str | None) -> Statement:
    """Set these columns of an open row that may move to `status`."""
    values: dict[str, Any] = {name: bindparam(name, type_=_t[name].type) for name in sorted(names)}
    movable = false() if status == "pending" else is_open
    return statement(update(lifecycle).where(this_row, movable).values(values), many=True)


CLAIM = statement(
    update(lifecycle)
    .where(this_row, is_pending, first_in_line)
    .where(_t.decky_name == func.coalesce(bindparam("of_decky", type_=_t.decky_name.type), _t.decky_name))
    .where(host == func.coalesce(bindparam("of_host", type_=_t.host_uuid.type), host))
    .values(
        status="running",
        owner=_owner,
        claimed_at=_now,
        updated_at=_now,
    ),
    many=True,
)
"""From pending to running, if no older open row of the same decky is there."""

_ended: dict[str, Any] = {"updated_at": _now, "completed_at": _now}

_end = (
    update(lifecycle)
    .where(this_row, _t.status == bindparam("expect"))
    .where(or_(is_pending, _t.owner.is_not_distinct_from(_owner)))
    .where(or_(_t.cancel_requested_at.is_(None), bindparam("keeps_outcome", type_=_t.attempt.type) == ONE))
    .values(
        status=bindparam("to_status", type_=_t.status.type),
        outcome=bindparam("to_outcome", type_=_t.outcome.type),
        error=_reason,
        retry_id=_next_id,
        **_ended,
    )
)
END = statement(_end, many=True)
"""End a row of this owner, unless a cancel was accepted and the outcome yields to it."""

_free = lifecycle.alias("free")
_end_if_free = _end.where(
    _t.id.in_(
        select(_free.c.id)
        .where(_free.c.id == bindparam("row_id"))
        .with_for_update(skip_locked=True)  # SQLite has one writer, and leaves it out
    )
)
END_IF_HOST: dict[HostState, Statement] = {
    "absent": statement(lambda dialect: _end_if_free.where(host_is("absent", dialect))),
    "lost": statement(lambda dialect: _end_if_free.where(host_is("lost", dialect))),
}
"""The same, if the row's host is that at this moment, and no session holds the row: a captured host may hold
its own for as long as it likes, and makes nobody wait."""


def _deployed(dialect: Dialect) -> Clause:
    upsert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    given = {name: bindparam(name, type_=_d[name].type) for name in ("document", "services")}
    columns = ["decky_name", "host", "document", "services", "lifecycle_id", "updated_at"]
    wanted = select(_t.decky_name, host, *given.values(), _t.id, _now).where(this_row)
    statement = upsert(deployed).from_select(columns, wanted)
    return statement.on_conflict_do_update(
        index_elements=[_d.decky_name, _d.host],
        set_={name: statement.excluded[name] for name in columns[2:]},
    )


DEPLOYED = statement(_deployed, many=True)
"""What the decky of this row runs now."""


def _undeployed(dialect: Dialect) -> Clause:
    if dialect == "postgresql":  # where a host's role may not delete
        return select(func.decnet_reaper_undeploy(host, _t.decky_name)).where(this_row)
    return delete(deployed).where(
        _d.decky_name == select(_t.decky_name).where(this_row).scalar_subquery(),
        _d.host == select(host).where(this_row).scalar_subquery(),
    )


UNDEPLOYED = statement(_undeployed, many=True)
"""The decky of this row runs nothing any more."""

NOTE_DELIVERY = statement(
    update(lifecycle)
    .where(this_row, is_pending, _t.deliveries == bindparam("seen"))
    .values(deliveries=_t.deliveries + ONE, enqueued_at=_now),
    many=True,
)
CANCEL_PENDING = statement(
    update(lifecycle)
    .where(this_row, is_pending)
    .values(status="failed", outcome="cancelled", error=_reason, **_ended)
)
CANCEL_RUNNING = statement(
    update(lifecycle)
    .where(this_row, is_running)
    .values(
        cancel_requested_at=func.coalesce(_t.cancel_requested_at, _now),
        updated_at=_now,
    )
)

# ---------------------------------------------------------------- changing many rows

_sweep = (
    update(lifecycle)
    .where(OPEN, _t.started_at < bindparam("older_than"))
    .values(status="failed", outcome="swept", error=_reason, **_ended)
)
SWEEP = statement(_sweep)
SWEEP_ON_HOST = statement(_sweep.where(on_host))
PRUNE = statement(
    delete(lifecycle).where(
        _t.id.in_(
            select(_t.id)
            .where(TERMINAL, _t.completed_at < bindparam("older_than"))
            .order_by(_t.completed_at)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)  # SQLite has one writer, and leaves it out
        )
    )
)
