"""Every statement that the store runs, built once so that SQLAlchemy compiles each of them once.

Parameters that name a row are called `row_id`, since `id` would be taken for a value to set.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite

from repo.base import ANY_HOST
from repo.models import deployed, lifecycle
from repo.sqlite.prepared import Prepared, Query

_t = lifecycle.c

# The words stand in the text, since a parameter would hide from the planner that the partial indexes apply.
_PENDING = text("decky_lifecycle.status = 'pending'")
_RUNNING = text("decky_lifecycle.status = 'running'")
_OPEN = text("decky_lifecycle.status IN ('pending', 'running')")
_TERMINAL = text("decky_lifecycle.completed_at IS NOT NULL")

_host = func.coalesce(_t.host_uuid, text("''"))
_any_row_of: ColumnElement[str] = literal_column(
    "(decky_lifecycle.decky_name || '')"
)  # as the index over all rows has it
_same_decky = and_(_host == bindparam("host"), _t.decky_name == bindparam("decky_name"))
_this_row = _t.id == bindparam("row_id")
_without_payload = [column for column in lifecycle.columns if column is not _t.payload]


def host_key(host_uuid: str | None) -> str:
    """How a host is compared: the master's own is one host too."""
    return host_uuid or ""


# ---------------------------------------------------------------- writes, one row each


_INSERTED = [
    *("id", "decky_name", "host_uuid", "operation", "status", "started_at", "updated_at"),
    *("payload", "attempt", "retry_of", "deliveries", "enqueued_at"),
]

INSERT = Prepared(insert(lifecycle).values({name: bindparam(name) for name in _INSERTED}))
"""A row as `fields.accepted` returns it."""

_newest = (
    select(_t.operation, _t.payload, _t.cancel_requested_at)
    .where(_OPEN, _same_decky)
    .order_by(_t.id.desc())
    .limit(1)
    .subquery("newest")
)
_asked_for_already = and_(
    _newest.c.operation == bindparam("operation"),
    _newest.c.payload.is_not_distinct_from(bindparam("payload")),
    _newest.c.cancel_requested_at.is_(None),
)

INSERT_UNLESS_ASKED = Prepared(
    insert(lifecycle).from_select(
        _INSERTED,
        select(*(bindparam(name) for name in _INSERTED)).where(
            ~exists(select(literal_column("1")).select_from(_newest).where(_asked_for_already))
        ),
    )
)
"""The same, with `host`, unless the decky's newest open row asks for it already and nobody cancelled that."""

FIND_ASKED = Query(
    select(_t.id)
    .where(_t.id.in_(select(_t.id).where(_OPEN, _same_decky).order_by(_t.id.desc()).limit(1)))
    .where(
        _t.operation == bindparam("operation"),
        _t.payload.is_not_distinct_from(bindparam("payload")),
        _t.cancel_requested_at.is_(None),
    )
)


@cache
def update_open(names: frozenset[str], status: str | None) -> Prepared:
    """Set these columns of an open row that may move to `status`."""
    movable = text("0") if status == "pending" else _OPEN
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    return Prepared(update(lifecycle).where(_this_row, movable).values(values))


_older = lifecycle.alias("older")
CLAIM = Prepared(
    update(lifecycle)
    .where(_this_row, _PENDING)
    .where(
        ~exists(
            select(literal_column("1"))
            .select_from(_older)
            .where(
                text("older.status IN ('pending', 'running')"),
                _older.c.decky_name == _t.decky_name,
                func.coalesce(_older.c.host_uuid, text("''")) == _host,
                _older.c.id < _t.id,
            )
        ).correlate(lifecycle)
    )
    .values(
        status="running",
        owner=bindparam("by_owner"),
        claimed_at=bindparam("now"),
        updated_at=bindparam("now"),
    )
)
"""From pending to running, if no older open row of the same decky is there."""

END = Prepared(
    update(lifecycle)
    .where(_this_row, _t.status == bindparam("expect"))
    .where(or_(_PENDING, _t.owner.is_not_distinct_from(bindparam("by_owner"))))
    .where(or_(_t.cancel_requested_at.is_(None), bindparam("whatever_cancelled")))
    .values(
        status=bindparam("to_status"),
        outcome=bindparam("to_outcome"),
        error=bindparam("reason"),
        retry_id=bindparam("next_id"),
        updated_at=bindparam("now"),
        completed_at=bindparam("now"),
    )
)


def _again(attempt: ColumnElement[Any]) -> Prepared:
    return Prepared(
        insert(lifecycle).from_select(
            _INSERTED,
            select(
                bindparam("next_id"),
                _t.decky_name,
                _t.host_uuid,
                _t.operation,
                literal_column("'pending'"),
                bindparam("now"),
                bindparam("now"),
                _t.payload,
                attempt,
                _t.id,
                literal_column("1"),
                bindparam("now"),
            ).where(_this_row),
        )
    )


RETRY = _again(_t.attempt + literal_column("1"))
"""The same request again, delivered once: whoever ends a row enqueues its retry right away."""

AGAIN = _again(literal_column("1"))
"""The same, as an operator asks for it: a first attempt."""

UNDEPLOYED = Prepared(
    delete(deployed).where(
        deployed.c.decky_name == select(_t.decky_name).where(_this_row).scalar_subquery(),
        deployed.c.host == select(_host).where(_this_row).scalar_subquery(),
    )
)
"""The decky of this row runs nothing any more."""

_deployment = sqlite.insert(deployed)  # PostgreSQL's insert has the same method
DEPLOYED = Prepared(
    _deployment.on_conflict_do_update(
        index_elements=[deployed.c.decky_name, deployed.c.host],
        set_={
            name: _deployment.excluded[name]
            for name in ("document", "services", "lifecycle_id", "updated_at")
        },
    ).from_select(
        ["decky_name", "host", "document", "services", "lifecycle_id", "updated_at"],
        select(
            _t.decky_name,
            _host,
            bindparam("document"),
            bindparam("services"),
            _t.id,
            bindparam("now"),
        ).where(_this_row),
    )
)
"""What the decky of this row runs now."""

NOTE_DELIVERY = Prepared(
    update(lifecycle)
    .where(_this_row, _PENDING, _t.deliveries == bindparam("seen"))
    .values(deliveries=_t.deliveries + literal_column("1"), enqueued_at=bindparam("now"))
)

CANCEL_PENDING = (
    update(lifecycle)
    .where(_this_row, _PENDING)
    .values(
        status="failed",
        outcome="cancelled",
        error=bindparam("reason"),
        updated_at=bindparam("now"),
        completed_at=bindparam("now"),
    )
)
CANCEL_RUNNING = (
    update(lifecycle)
    .where(_this_row, _RUNNING)
    .values(
        cancel_requested_at=func.coalesce(_t.cancel_requested_at, bindparam("now")),
        updated_at=bindparam("now"),
    )
)

# ---------------------------------------------------------------- writes, many rows

SWEEP = (
    update(lifecycle)
    .where(_OPEN, _t.started_at < bindparam("older_than"))
    .values(
        status="failed",
        outcome="swept",
        error=bindparam("reason"),
        updated_at=bindparam("now"),
        completed_at=bindparam("now"),
    )
)
SWEEP_ON_HOST = SWEEP.where(_host == bindparam("host"))
PRUNE = delete(lifecycle).where(
    _t.id.in_(
        select(_t.id)
        .where(_TERMINAL, _t.completed_at < bindparam("older_than"))
        .order_by(_t.completed_at)
        .limit(bindparam("most"))
    )
)

# ---------------------------------------------------------------- reads

STATE = Query(
    select(
        *(_t.status, _t.decky_name, _t.owner, _t.cancel_requested_at, _t.operation),
        _t.payload.is_not(None).label("has_payload"),
    ).where(_this_row)
)
BY_ID = Query(select(*_without_payload).where(_this_row))
BY_IDS = Query(
    select(lifecycle)
    .where(_t.id.in_(select(func.json_each(bindparam("ids")).table_valued("value").c.value)))
    .order_by(_t.started_at, _t.id)
)
"""`ids` is one JSON array, since SQLite takes 32,766 parameters at most."""

CLAIMED = Query(
    select(lifecycle, deployed.c.document, deployed.c.services)
    .select_from(
        lifecycle.outerjoin(deployed, and_(deployed.c.decky_name == _t.decky_name, deployed.c.host == _host))
    )
    .where(_this_row)
)
"""A row, and what its decky runs."""

_find_open = (
    select(lifecycle)
    .where(_OPEN, _t.decky_name == bindparam("decky_name"), _t.operation == bindparam("operation"))
    .order_by(_t.started_at.desc(), _t.id.desc())
    .limit(1)
)
FIND_OPEN = Query(_find_open)
FIND_OPEN_ON_HOST = Query(_find_open.where(_host == bindparam("host")))
FIND_NEXT = Query(select(*_without_payload).where(_OPEN, _same_decky).order_by(_t.id).limit(1))
_other = lifecycle.alias("other")
MORE = Query(
    select(_other.c.id)
    .where(_this_row, text("other.status IN ('pending', 'running')"))
    .where(_other.c.decky_name == _t.decky_name, func.coalesce(_other.c.host_uuid, text("''")) == _host)
    .limit(1)
)
"""An open row of the same decky."""
_list_open = select(*_without_payload).where(_OPEN).order_by(_t.id.concat(""))
LIST_OPEN = Query(_list_open)  # by id alone, SQLite would walk all
LIST_OPEN_ON_HOST = Query(_list_open.where(_host == bindparam("host")))
FIND_READY = Query(
    select(*_without_payload)
    .where(_PENDING, _host == bindparam("host"))
    .where(
        ~exists(
            select(literal_column("1"))
            .select_from(_older)
            .where(
                text("older.status IN ('pending', 'running')"),
                _older.c.decky_name == _t.decky_name,
                func.coalesce(_older.c.host_uuid, text("''")) == _host,
                _older.c.id < _t.id,
            )
        ).correlate(lifecycle)
    )
    .order_by(_t.id.concat(""))
    .limit(bindparam("most"))
)
FIND_CANCELLED = Query(
    select(_t.id).where(_RUNNING, _t.cancel_requested_at.is_not(None), _t.owner == bindparam("by_owner"))
)
OPEN_PAYLOADS = Query(select(_t.payload).where(_OPEN, _same_decky).order_by(_t.id.desc()))
FIND_DEPLOYED = Query(
    select(deployed.c.document, deployed.c.services).where(
        deployed.c.decky_name == bindparam("decky_name"), deployed.c.host == bindparam("host")
    )
)


def deployed_deckies(host_uuid: str | None, decky_name: str | None) -> Select[Any]:
    """What deckies run, without their documents, by name."""
    d = deployed.c
    found = select(d.decky_name, d.host, d.services, d.updated_at.label("deployed_at"), d.lifecycle_id)
    if host_uuid != ANY_HOST:
        found = found.where(d.host == host_key(host_uuid))
    if decky_name is not None:
        found = found.where(d.decky_name == decky_name)
    return found.order_by(d.decky_name, d.host)


def listing(
    *,
    statuses: Iterable[str],
    outcomes: Iterable[str],
    operation: str | None,
    decky_name: str | None,
    host_uuid: str | None,
    since: str | None,
    limit: int,
) -> Select[Any]:
    """Rows without payload, newest first."""
    conditions: list[ColumnElement[bool]] = []
    if wanted := list(statuses):
        conditions.append(_t.status.in_(wanted))
    if wanted := list(outcomes):
        conditions.append(_t.outcome.in_(wanted))
    if operation is not None:
        conditions.append(_t.operation == operation)
    if decky_name is not None:
        conditions.append(_any_row_of == decky_name)
    if host_uuid is not None:
        conditions.append(_t.host_uuid == host_uuid)
    if since is not None:
        conditions.append(_t.started_at >= since)
    newest_first = (_t.started_at.desc(), _t.id.desc())
    return select(*_without_payload).where(*conditions).order_by(*newest_first).limit(limit)
