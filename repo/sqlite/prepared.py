"""Statements in the driver's own words: SQLAlchemy writes each of them once, and is not asked again.

What it does for every execution takes ten times as long as SQLite does (measured: 150 of 170 microseconds for
a row by its id). A thread that waits for SQLite also has to get Python's lock back after every call, so that
fewer calls are worth more than they seem.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from sqlalchemy import Connection, Select, UpdateBase
from sqlalchemy.dialects import sqlite

from repo.base import Row

_dialect = sqlite.dialect()


class Prepared:
    """A statement, and its parameters by position."""

    def __init__(self, statement: UpdateBase | Select[Any]) -> None:
        compiled = statement.compile(dialect=_dialect, compile_kwargs={"render_postcompile": True})
        self.text = str(compiled)
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        self._names = compiled.positiontup or []

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values that the statement takes, in its order; it may be given more."""
        given = {**self._constants, **values}
        return tuple([given[name] for name in self._names])

    def run(self, connection: Connection, rows: list[tuple[Any, ...]]) -> int:
        """Run it once for each tuple of parameters; how many rows were changed in all."""
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(self.text, rows)
            return cursor.rowcount
        finally:
            cursor.close()


class Query(Prepared):
    """A read."""

    def __init__(self, statement: Select[Any]) -> None:
        super().__init__(statement)
        self._columns = [column.name for column in statement.selected_columns]
        self._converted: list[tuple[str, Callable[[Any], Any]]] = [
            (column.name, convert)
            for column in statement.selected_columns
            if (convert := column.type.result_processor(_dialect, None)) is not None
        ]

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Row]:
        """What it finds, by the names of its columns."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self.text, self.parameters(values))
            found: Iterable[tuple[Any, ...]] = cursor.fetchall()
        finally:
            cursor.close()
        return [self._row(each) for each in found]

    def first(self, connection: Connection, values: Mapping[str, Any]) -> Row | None:
        """The first row that it finds."""
        return next(iter(self.rows(connection, values)), None)

    def _row(self, found: tuple[Any, ...]) -> Row:
        row: Any = dict(zip(self._columns, found, strict=True))
        for name, convert in self._converted:
            if (value := row[name]) is not None:
                row[name] = convert(value)
        return cast("Row", row)
