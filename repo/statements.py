"""Every statement that the repository runs, written once from the models.

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
    false,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    union_all,
    update,
)

from repo.base import ANY_HOST
from repo.engine import Clause, Statement
from repo.models import deployed, lifecycle, store

_t = lifecycle.c
_d = deployed.c

# The words stand in the text, since a parameter would hide from the planner that the partial indexes apply.
_PENDING = text("decky_lifecycle.status = 'pending'")
_RUNNING = text("decky_lifecycle.status = 'running'")
_OPEN = text("decky_lifecycle.status IN ('pending', 'running')")
_TERMINAL = text("decky_lifecycle.completed_at IS NOT NULL")

# A parameter on purpose, where a row is looked up by its id and the planner shall use no other index.
_is_pending = _t.status == bindparam("pending", "pending")
_ONE: ColumnElement[int] = literal_column("1")

_host = func.coalesce(_t.host_uuid, text("''"))
_any_row_of: ColumnElement[str] = literal_column(
    "(decky_lifecycle.decky_name || '')"
)  # as the index over all rows has it
_on_host = _host == bindparam("host")
_same_decky = and_(_on_host, _t.decky_name == bindparam("decky_name"))
_this_row = _t.id == bindparam("row_id")
_without_payload = [column for column in lifecycle.columns if column is not _t.payload]
_older = lifecycle.alias("older")
_first_in_line = ~exists(
    select(_ONE)
    .select_from(_older)
    .where(
        text("older.status IN ('pending', 'running')"),
        _older.c.decky_name == _t.decky_name,
        func.coalesce(_older.c.host_uuid, text("''")) == _host,
        _older.c.id < _t.id,
    )
).correlate(lifecycle)


def host_key(host_uuid: str | None) -> str:
    """How a host is compared: the master's own is one host too."""
    return host_uuid or ""


def _of_ids(dialect: str) -> ColumnElement[bool]:
    """Of the rows whose ids are in `ids`, one JSON array, since SQLite takes 32,766 parameters at most."""
    if dialect == "postgresql":
        # an array, of which PostgreSQL expects few elements: from a query it would expect a hundred
        return text("decky_lifecycle.id = ANY (ARRAY(SELECT jsonb_array_elements_text(:ids ::jsonb)))")  # type: ignore[return-value]
    return _t.id.in_(select(func.json_each(bindparam("ids")).table_valued("value").c.value))


# ---------------------------------------------------------------- accepting

_INSERTED = [
    *("id", "decky_name", "host_uuid", "operation", "status", "started_at", "updated_at"),
    *("payload", "attempt", "retry_of", "deliveries", "enqueued_at"),
]
_given = {name: bindparam(name, type_=_t[name].type) for name in _INSERTED}

_newer = lifecycle.alias("newer")
_is_newest = ~exists(
    select(_ONE)
    .select_from(_newer)
    .where(
        _newer.c.id > _given["id"],
        _newer.c.id < bindparam("horizon"),
        func.substr(_newer.c.id, 15, 1) == text("'7'"),
    )
)
"""No id of version 7 up to `horizon` is greater. (A row that DECNET wrote has one of version 4.)"""

INSERT = Statement(insert(lifecycle).from_select(_INSERTED, select(*_given.values()).where(_is_newest)))
"""A row as `validation.accepted` returns it, with `horizon`."""

_newest = (
    select(_t.operation, _t.payload, _t.cancel_requested_at)
    .where(_OPEN, _same_decky)
    .order_by(_t.id.desc())
    .limit(1)
    .subquery("newest")
)


def _asks_for_it(row: Any) -> ColumnElement[bool]:
    return and_(
        row.operation == bindparam("operation"),
        row.payload.is_not_distinct_from(_given["payload"]),
        row.cancel_requested_at.is_(None),
    )


INSERT_UNLESS_ASKED = Statement(
    insert(lifecycle).from_select(
        _INSERTED,
        select(*_given.values()).where(
            _is_newest, ~exists(select(_ONE).select_from(_newest).where(_asks_for_it(_newest.c)))
        ),
    ),
    one_at_a_time=("host", "decky_name"),
)
"""The same, with `host`, unless the decky's newest open row asks for it already and nobody cancelled that."""

FIND_ASKED = Statement(
    select(_t.id)
    .where(_t.id.in_(select(_t.id).where(_OPEN, _same_decky).order_by(_t.id.desc()).limit(1)))
    .where(_asks_for_it(_t))
)
FIND_NEWEST = Statement(
    select(_t.id)
    .where(_t.id < bindparam("horizon"), func.substr(_t.id, 15, 1) == text("'7'"))
    .order_by(_t.id.desc())
    .limit(1)
)


def _again(attempt: ColumnElement[int]) -> Statement:
    copied = {
        "id": bindparam("next_id", type_=_t.id.type),
        "status": literal_column("'pending'"),
        "started_at": bindparam("now", type_=_t.started_at.type),
        "updated_at": bindparam("now", type_=_t.started_at.type),
        "attempt": attempt,
        "retry_of": _t.id,
        "deliveries": _ONE,
        "enqueued_at": bindparam("now", type_=_t.started_at.type),
    }
    columns: list[Any] = [copied.get(name, _t[name]) for name in _INSERTED]
    return Statement(insert(lifecycle).from_select(_INSERTED, select(*columns).where(_this_row)))


RETRY = _again(_t.attempt + _ONE)
"""The same request again, delivered once: whoever ends a row enqueues its retry right away."""

AGAIN = _again(_ONE)
"""The same, as an operator asks for it: a first attempt."""

# ---------------------------------------------------------------- changing one row


@cache
def update_open(names: frozenset[str], status: str | None) -> Statement:
    """Set these columns of an open row that may move to `status`."""
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    movable = false() if status == "pending" else _OPEN
    return Statement(update(lifecycle).where(_this_row, movable).values(values))


CLAIM = Statement(
    update(lifecycle)
    .where(_this_row, _is_pending, _first_in_line)
    .values(
        status="running",
        owner=bindparam("by_owner"),
        claimed_at=bindparam("now"),
        updated_at=bindparam("now"),
    )
)
"""From pending to running, if no older open row of the same decky is there."""

_ended: dict[str, Any] = {"updated_at": bindparam("now"), "completed_at": bindparam("now")}

END = Statement(
    update(lifecycle)
    .where(_this_row, _t.status == bindparam("expect"))
    .where(or_(_PENDING, _t.owner.is_not_distinct_from(bindparam("by_owner"))))
    .where(or_(_t.cancel_requested_at.is_(None), bindparam("keeps_outcome", type_=_t.attempt.type) == _ONE))
    .values(
        status=bindparam("to_status"),
        outcome=bindparam("to_outcome"),
        error=bindparam("reason"),
        retry_id=bindparam("next_id"),
        **_ended,
    )
)
"""End a row of this owner, unless a cancel was accepted and the outcome yields to it."""


def _deployed(dialect: str) -> Clause:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as upsert
    else:
        from sqlalchemy.dialects.sqlite import insert as upsert  # type: ignore[assignment]
    given = {name: bindparam(name, type_=_d[name].type) for name in ("document", "services")}
    columns = ["decky_name", "host", "document", "services", "lifecycle_id", "updated_at"]
    wanted = select(
        _t.decky_name, _host, *given.values(), _t.id, bindparam("now", type_=_d.updated_at.type)
    ).where(_this_row)
    statement = upsert(deployed).from_select(columns, wanted)
    return statement.on_conflict_do_update(
        index_elements=[_d.decky_name, _d.host],
        set_={name: statement.excluded[name] for name in columns[2:]},
    )


DEPLOYED = Statement(_deployed)
"""What the decky of this row runs now."""


def _undeployed(dialect: str) -> Clause:
    if dialect == "postgresql":  # where a host's role may not delete
        return select(func.decnet_reaper_undeploy(_host, _t.decky_name)).where(_this_row)
    return delete(deployed).where(
        _d.decky_name == select(_t.decky_name).where(_this_row).scalar_subquery(),
        _d.host == select(_host).where(_this_row).scalar_subquery(),
    )


UNDEPLOYED = Statement(_undeployed)
"""The decky of this row runs nothing any more."""

NOTE_DELIVERY = Statement(
    update(lifecycle)
    .where(_this_row, _is_pending, _t.deliveries == bindparam("seen"))
    .values(deliveries=_t.deliveries + _ONE, enqueued_at=bindparam("now"))
)
CANCEL_PENDING = Statement(
    update(lifecycle)
    .where(_this_row, _PENDING)
    .values(status="failed", outcome="cancelled", error=bindparam("reason"), **_ended)
)
CANCEL_RUNNING = Statement(
    update(lifecycle)
    .where(_this_row, _RUNNING)
    .values(
        cancel_requested_at=func.coalesce(
            _t.cancel_requested_at, bindparam("now", type_=_t.cancel_requested_at.type)
        ),
        updated_at=bindparam("now"),
    )
)

# ---------------------------------------------------------------- changing many rows

_sweep = (
    update(lifecycle)
    .where(_OPEN, _t.started_at < bindparam("older_than"))
    .values(status="failed", outcome="swept", error=bindparam("reason"), **_ended)
)
SWEEP = Statement(_sweep)
SWEEP_ON_HOST = Statement(_sweep.where(_on_host))
PRUNE = Statement(
    delete(lifecycle).where(
        _t.id.in_(
            select(_t.id)
            .where(_TERMINAL, _t.completed_at < bindparam("older_than"))
            .order_by(_t.completed_at)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)  # SQLite has one writer, and leaves it out
        )
    )
)

# ---------------------------------------------------------------- reads

STATE = Statement(
    select(
        *(_t.status, _t.decky_name, _t.owner, _t.cancel_requested_at, _t.operation),
        *(_t.outcome, _t.error, _t.payload.is_not(None).label("has_payload")),
    )
    .where(_this_row)
    .with_for_update()  # SQLite has one writer, and leaves it out
)
STAMPED = Statement(
    select(_t.id).where(
        _this_row,
        bindparam("now", type_=_t.updated_at.type).in_(
            [_t.updated_at, _t.claimed_at, _t.completed_at, _t.enqueued_at, _t.cancel_requested_at]
        ),
    )
)
"""A row that was written at this very moment."""
BY_ID = Statement(select(*_without_payload).where(_this_row))
BY_IDS = Statement(lambda dialect: select(lifecycle).where(_of_ids(dialect)).order_by(_t.started_at, _t.id))
CLAIMED = Statement(
    lambda dialect: (
        select(lifecycle, _d.document, _d.services)
        .select_from(lifecycle.outerjoin(deployed, and_(_d.decky_name == _t.decky_name, _d.host == _host)))
        .where(_of_ids(dialect))
    )
)
"""Rows by `ids`, and what their deckies run."""

_other = lifecycle.alias("other")
_more = exists(
    select(_ONE)
    .select_from(_other)
    .where(
        text("other.status IN ('pending', 'running')"),
        _other.c.decky_name == _t.decky_name,
        func.coalesce(_other.c.host_uuid, text("''")) == _host,
    )
).correlate(lifecycle)
MORE = Statement(lambda dialect: select(_t.id, _more.label("more")).where(_of_ids(dialect)))
"""Of rows by `ids`, whether their deckies have another open row."""

_find_open = (
    select(lifecycle)
    .where(_OPEN, _t.decky_name == bindparam("decky_name"), _t.operation == bindparam("operation"))
    .order_by(_t.started_at.desc(), _t.id.desc())
    .limit(1)
)
FIND_OPEN = Statement(_find_open)
FIND_OPEN_ON_HOST = Statement(_find_open.where(_on_host))
FIND_RUNNING = Statement(select(_t.id).where(_RUNNING, _same_decky))
FIND_NEXT = Statement(select(*_without_payload).where(_OPEN, _same_decky).order_by(_t.id).limit(1))

_in_order = _t.id.concat("")  # by id alone, SQLite would walk all rows
_list_open = select(*_without_payload).where(_OPEN).order_by(_in_order)
LIST_OPEN = Statement(_list_open)
LIST_OPEN_ON_HOST = Statement(_list_open.where(_on_host))
FIND_READY = Statement(
    select(*_without_payload)
    .where(_PENDING, _on_host, _first_in_line)
    .order_by(_in_order)
    .limit(bindparam("most"))
)
FIND_CANCELLED = Statement(
    select(_t.id).where(_RUNNING, _t.cancel_requested_at.is_not(None), _t.owner == bindparam("by_owner"))
)
STORE = Statement(select(store.c.id))

DOCUMENTS = Statement(
    union_all(
        select(_t.id, _t.operation, _t.payload.label("value")).where(_OPEN, _same_decky),
        select(
            literal_column("''").label("id"),
            literal_column("''").label("operation"),
            _d.document.label("value"),
        ).where(_d.decky_name == bindparam("decky_name"), _d.host == bindparam("host")),
    )
)
"""What the decky's open rows ask for; and what it runs, under no id and no operation."""
FIND_DEPLOYED = Statement(
    select(_d.document, _d.services).where(
        _d.decky_name == bindparam("decky_name"), _d.host == bindparam("host")
    )
)


def deployed_deckies(host_uuid: str | None, decky_name: str | None) -> Statement:
    """What deckies run, without their documents, by name."""
    found = select(_d.decky_name, _d.host, _d.services, _d.updated_at.label("deployed_at"), _d.lifecycle_id)
    if host_uuid != ANY_HOST:
        found = found.where(_d.host == host_key(host_uuid))
    if decky_name is not None:
        found = found.where(_d.decky_name == decky_name)
    return Statement(found.order_by(_d.decky_name, _d.host))


def listing(
    *,
    statuses: Iterable[str],
    outcomes: Iterable[str],
    operation: str | None,
    decky_name: str | None,
    host_uuid: str | None,
    since: str | None,
    limit: int,
) -> Statement:
    """Rows without payload, newest first."""
    conditions: list[ColumnElement[bool]] = []
    if wanted := list(statuses):
        conditions.append(_t.status.in_(wanted))
    if wanted := list(outcomes):
        conditions.append(_t.outcome.in_(wanted))
    if operation is not None:
        conditions.append(_t.operation == operation)
    if decky_name is not None:
        conditions.append(_any_row_of == bindparam("decky_name", decky_name))
    if host_uuid is not None:
        conditions.append(_t.host_uuid == host_uuid)
    if since is not None:
        conditions.append(_t.started_at >= since)
    newest_first = (_t.started_at.desc(), _t.id.desc())
    found: Select[Any] = select(*_without_payload).where(*conditions).order_by(*newest_first).limit(limit)
    return Statement(found)
