"""What statements have in common: which rows they are about."""

import re
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    any_,
    bindparam,
    false,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
)

from repo.lifecycle import HostState
from repo.models.statement import Dialect
from repo.models.tables import lifecycle
from repo.models.validation import ESCAPE

_t = lifecycle.c

# The words stand in the text, since a parameter would hide from the planner that the partial indexes apply.
PENDING = text("decky_lifecycle.status = 'pending'")
RUNNING = text("decky_lifecycle.status = 'running'")
OPEN = text("decky_lifecycle.status IN ('pending', 'running')")
TERMINAL = text("decky_lifecycle.completed_at IS NOT NULL")

# Parameters on purpose, where a row is looked up by its id and the planner shall use no other index.
is_pending = _t.status == bindparam("pending", "pending")
is_running = _t.status == bindparam("running", "running")
is_open = or_(is_pending, is_running)
ONE: ColumnElement[int] = literal_column("1")

LOST = text("decky_lifecycle.outcome = 'lost'")

host = func.coalesce(_t.host_uuid, text("''"))
on_host = host == bindparam("host")
any_row_of: ColumnElement[str] = literal_column("(decky_lifecycle.decky_name || '')")
"""The decky's name, as the index over all rows has it."""
same_decky = and_(on_host, _t.decky_name == bindparam("decky_name"))
this_row = _t.id == bindparam("row_id")
without_payload = [column for column in lifecycle.columns if column is not _t.payload]
_older = lifecycle.alias("older")
oldest_open = (
    select(_older.c.id)
    .where(
        text("older.status IN ('pending', 'running')"),
        _older.c.decky_name == _t.decky_name,
        func.coalesce(_older.c.host_uuid, text("''")) == host,
    )
    .order_by(_older.c.id)
    .limit(ONE)
    .correlate(lifecycle)
    .scalar_subquery()
)
"""Id of the oldest open row of this row's decky, or null. (For EXISTS PostgreSQL walks all open rows.)"""
first_in_line = _t.id == oldest_open
"""An open row that no older one of its decky is before."""


def matching(moment: ColumnElement[Any], dialect: Dialect) -> dict[str, ColumnElement[bool]]:
    """What may be asked for (see `validation.filtered`); times are those of `moment`."""
    return {
        "statuses": _one_of(_t.status, "statuses", dialect),
        "outcomes": _one_of(_t.outcome, "outcomes", dialect),
        "operation": _t.operation == bindparam("operation"),
        "decky_name": any_row_of == bindparam("decky_name"),
        "host": on_host,
        "error": _t.error.icontains(bindparam("error"), escape=ESCAPE),
        "since": moment >= bindparam("since", type_=moment.type),
        "until": moment < bindparam("until", type_=moment.type),
    }


def is_version_7(id_: ColumnElement[str], dialect: Dialect) -> ColumnElement[bool]:
    """It is an id as `ids.new_id` makes it: anybody's own may have a 7 in that place."""
    digits = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    if dialect == "postgresql":
        return id_.op("~")(literal_column(f"'^{digits}$'"))
    glob = re.sub(r"(\[[^]]+])\{(\d+)}", lambda found: found[1] * int(found[2]), digits)
    return id_.op("GLOB")(literal_column(f"'{glob}'"))


def host_is(state: HostState, dialect: Dialect) -> ColumnElement[bool]:
    """The row's host is that at this moment. On SQLite each is absent, and none is written down as lost."""
    if dialect != "postgresql":
        return true() if state == "absent" else false()
    return func.decnet_reaper_is_lost(host) if state == "lost" else ~func.decnet_reaper_is_present(host)


def on_hosts(dialect: Dialect) -> ColumnElement[bool]:
    """Of one of the hosts whose keys (see `host_key`) are in `hosts`, one JSON array."""
    return _one_of(host, "hosts", dialect)


def of_ids(dialect: Dialect) -> ColumnElement[bool]:
    """Of the rows whose ids are in `ids`, one JSON array, since SQLite takes 32,766 parameters at most."""
    return _one_of(_t.id, "ids", dialect)


def _one_of(column: ColumnElement[Any], name: str, dialect: Dialect) -> ColumnElement[bool]:
    """Of the rows in which it has one of the values in this parameter, one JSON array."""
    if dialect == "postgresql":
        # an array, of which PostgreSQL expects few elements: from a query it would expect a hundred
        return column == any_(
            func.array(select(text(f"jsonb_array_elements_text(:{name} ::jsonb)")).scalar_subquery())
        )
    return column.in_(select(func.json_each(bindparam(name)).table_valued("value").c.value))
