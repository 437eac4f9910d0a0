"""Move a store from one engine to another: every row, read again and compared."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Table, bindparam, func, insert, select, tuple_

from repo.engine import Engine, Reader, Step
from repo.errors import StoreUnusable
from repo.models.clauses import statement
from repo.models.tables import Json, UtcTime, deployed, lifecycle
from repo.models.times import to_text
from repo.models.validation import to_json

_PAGE = 1_000


class Copied(NamedTuple):
    """What was copied: attempts, and what deckies run."""

    lifecycles: int
    deployed: int


class _Copied:
    """One table that is copied, in the order of its key."""

    def __init__(self, table: Table) -> None:
        self.name = table.name
        self._key = [column.name for column in table.primary_key]
        self._times = [column.name for column in table.columns if isinstance(column.type, UtcTime)]
        self._documents = [column.name for column in table.columns if isinstance(column.type, Json)]
        after = tuple_(*(bindparam(f"after_{name}", type_=table.c[name].type) for name in self._key))
        keys = tuple_(*table.primary_key)
        self._first = statement(select(table).order_by(*table.primary_key).limit(_PAGE))
        self._next = statement(select(table).where(keys > after).order_by(*table.primary_key).limit(_PAGE))
        self._count = statement(select(func.count().label("rows")).select_from(table))
        self.insert = statement(insert(table).values({c.name: bindparam(c.name) for c in table.columns}))

    async def pages(self, reader: Reader) -> AsyncIterator[list[dict[str, Any]]]:
        """All rows, as many at a time as a page holds."""
        page = await reader.rows(self._first, {})
        while page:
            yield page
            page = await reader.rows(self._next, {f"after_{name}": page[-1][name] for name in self._key})

    async def count(self, reader: Reader) -> int:
        """How many rows there are."""
        row = await reader.first(self._count, {})
        return 0 if row is None else int(row["rows"])

    def values(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as a statement takes it.

        Raises:
            InvalidLifecycle: the other engine can't hold it.
        """
        values = dict(row)
        for name in self._times:
            values[name] = None if row[name] is None else to_text(datetime.fromisoformat(row[name]))
        for name in self._documents:
            where = f"{self.name} {' '.join(str(row[name]) for name in self._key)}: {name}"
            values[name] = None if row[name] is None else to_json(row[name], where)
        return values


_TABLES = (_Copied(lifecycle), _Copied(deployed))


async def copy_store(source: Engine, target: Engine) -> Copied:
    """Copy all rows into an empty store. Nobody may write to either meanwhile.

    Args:
        source: open.
        target: open, another store.

    Raises:
        StoreUnusable: the target holds rows already, and nothing was changed; or a row can't be read, or what
            was copied differs.
        InvalidLifecycle: the target can't hold a row. As above, it has a part of the rows then: don't use it.
    """
    for table in _TABLES:
        if await table.count(target):
            raise StoreUnusable(f"{target.name}: it holds rows already; name an empty store")
    return Copied(*[await _copy(table, source, target) for table in _TABLES])


async def _copy(table: _Copied, source: Engine, target: Engine) -> int:
    async for page in table.pages(source):
        steps = [Step(table.insert, table.values(row)) for row in page]
        await target.transact(lambda transaction: transaction.run(steps))  # noqa: B023 - awaited here
    copies, count = table.pages(target), 0
    async for page in table.pages(source):
        if await anext(copies, None) != page:
            raise StoreUnusable(f"{target.name}: what was copied of {table.name} differs; don't use it")
        count += len(page)
    if (missing := await table.count(source) - count) != 0:
        raise StoreUnusable(f"{source.name}: {missing} rows of {table.name} can't be read; see the log")
    return count
