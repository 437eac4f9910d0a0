"""Statements that read."""

from sqlalchemy import (
    and_,
    bindparam,
    literal_column,
    select,
    union_all,
)

from repo.lifecycle import HostState
from repo.models.clauses import filtered, statement
from repo.models.statement import Statement
from repo.models.tables import deployed, lifecycle, store
from repo.repository.statements.conditions import (
    LOST,
    OPEN,
    PENDING,
    RUNNING,
    first_in_line,
    host,
    host_is,
    matching,
    of_ids,
    oldest_open,
    on_host,
    on_hosts,
    same_decky,
    this_row,
    without_payload,
)

_t = lifecycle.c
_d = deployed.c

STATE = statement(
    select(
        *(_t.status, _t.decky_name, _t.owner, _t.cancel_requested_at, _t.operation),
        *(_t.outcome, _t.error, _t.payload.is_not(None).label("has_payload")),
    )
    .where(this_row)
    .with_for_update()  # SQLite has one writer, and leaves it out
)
STAMPED = statement(
    select(_t.id).where(
        this_row,
        bindparam("now", type_=_t.updated_at.type).in_(
            [_t.updated_at, _t.claimed_at, _t.completed_at, _t.enqueued_at, _t.cancel_requested_at]
        ),
    )
)
"""A row that was written at this very moment."""
BY_ID = statement(select(*without_payload).where(this_row))
_oldest_first = (_t.started_at, _t.id)
BY_IDS = statement(lambda dialect: select(lifecycle).where(of_ids(dialect)).order_by(*_oldest_first))
BY_IDS_WITHOUT_PAYLOAD = statement(
    lambda dialect: select(*without_payload).where(of_ids(dialect)).order_by(*_oldest_first)
)
CLAIMED = statement(
    lambda dialect: (
        select(lifecycle, _d.document, _d.services)
        .select_from(lifecycle.outerjoin(deployed, and_(_d.decky_name == _t.decky_name, _d.host == host)))
        .where(of_ids(dialect))
    )
)
"""Rows by `ids`, and what their deckies run."""

MORE = statement(lambda dialect: select(_t.id, oldest_open.is_not(None).label("more")).where(of_ids(dialect)))
"""Of rows by `ids`, whether their deckies have another open row."""

_find_open = (
    select(lifecycle)
    .where(OPEN, _t.decky_name == bindparam("decky_name"), _t.operation == bindparam("operation"))
    .order_by(_t.started_at.desc(), _t.id.desc())
    .limit(1)
)
FIND_OPEN = statement(_find_open)
FIND_OPEN_ON_HOST = statement(_find_open.where(on_host))
FIND_RUNNING = statement(select(_t.id).where(RUNNING, same_decky))
FIND_NEXT = statement(select(*without_payload).where(OPEN, same_decky).order_by(_t.id).limit(1))

_in_order = _t.id.concat("")  # by id alone, SQLite would walk all rows
_list_open = select(*without_payload).where(OPEN).order_by(_in_order)
LIST_OPEN = statement(_list_open)
LIST_OPEN_ON_HOST = statement(_list_open.where(on_host))
LIST_OPEN_ELSEWHERE = statement(lambda dialect: _list_open.where(~on_hosts(dialect)))
"""Open rows of all hosts but `hosts`."""
LIST_LOST = statement(select(*without_payload).where(LOST, on_host).order_by(_in_order))
_free = select(_t.id).where(this_row).with_for_update(skip_locked=True)
HOST_IS: dict[HostState, Statement] = {
    "absent": statement(lambda dialect: _free.where(host_is("absent", dialect))),
    "lost": statement(lambda dialect: _free.where(host_is("lost", dialect))),
}
"""This row, if its host is that at this moment, and no other session holds the row."""
FIND_READY = statement(
    select(*without_payload)
    .where(PENDING, on_host, first_in_line)
    .order_by(_in_order)
    .limit(bindparam("most"))
)
FIND_CANCELLED = statement(
    select(_t.id).where(RUNNING, _t.cancel_requested_at.is_not(None), _t.owner == bindparam("by_owner"))
)
STORE = statement(select(store.c.id))

DOCUMENTS = statement(
    union_all(
        select(_t.id, _t.operation, _t.payload.label("value")).where(OPEN, same_decky),
        select(
            literal_column("''").label("id"),
            literal_column("''").label("operation"),
            _d.document.label("value"),
        ).where(_d.decky_name == bindparam("decky_name"), _d.host == bindparam("host")),
    )
)
"""What the decky's open rows ask for; and what it runs, under no id and no operation."""
FIND_DEPLOYED = statement(
    select(_d.document, _d.services).where(
        _d.decky_name == bindparam("decky_name"), _d.host == bindparam("host")
    )
)


LIST_DEPLOYED = filtered(
    select(
        *(_d.decky_name, _d.host, _d.services, _d.updated_at.label("deployed_at"), _d.lifecycle_id)
    ).order_by(_d.decky_name, _d.host),
    lambda dialect: {name: _d[name] == bindparam(name) for name in ("host", "decky_name")},
)
"""What deckies run, without their documents, by name."""

LIST = filtered(
    select(*without_payload).order_by(_t.started_at.desc(), _t.id.desc()).limit(bindparam("most")),
    lambda dialect: matching(_t.started_at, dialect),
)
"""Rows without payload, newest first."""
