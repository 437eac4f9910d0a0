"""A statement in the words of each database. What writes one is `repo.models.clauses`."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from repo.models.times import to_iso

Dialect = Literal["sqlite", "postgresql"]
Kind = Literal["time", "json", "number", "flag"]
Values = Mapping[str, Any]


@dataclass(eq=False)
class Compiled:
    """A statement in the words of one driver, its parameters by position.

    Attributes:
        text: the SQL.
        names: which value stands at which position.
        constants: those that are always the same.
        columns: what a row of it consists of, and how each is handed out (None: as it is); none for a write.
    """

    text: str
    names: Sequence[str]
    constants: Values
    columns: Sequence[tuple[str, Kind | None]]

    def __post_init__(self) -> None:
        self._columns = [name for name, _ in self.columns]
        self._converted = [(name, _CONVERTERS[kind]) for name, kind in self.columns if kind is not None]

    def parameters(self, values: Values) -> tuple[Any, ...]:
        """The values that the statement takes, in its order; it may be given more."""
        given = {**self.constants, **values}
        return tuple([given[name] for name in self.names])

    def row(self, found: Sequence[Any]) -> dict[str, Any]:
        """A row as the store hands it out, from one of the driver's.

        Raises:
            ValueError, TypeError: it holds what no row of ours can hold.
        """
        row = dict(zip(self._columns, found, strict=True))
        for name, convert in self._converted:
            if (value := row[name]) is not None:
                row[name] = convert(value)
        return row


class Statement:
    """A write or a read.

    Args:
        compiled: what it is in a dialect; asked once for each.
        one_at_a_time: values of it; two transactions in which they are the same come one after the other, as
            if the database had one writer only.
        of_many: the same for many rows at once, whose values are lists, if there is such a statement.
    """

    def __init__(
        self,
        compiled: Callable[[Dialect], Compiled],
        *,
        one_at_a_time: Sequence[str] = (),
        of_many: "Statement | None" = None,
    ) -> None:
        self._compile = compiled
        self.one_at_a_time = one_at_a_time
        self.of_many = of_many
        self._compiled: dict[Dialect, Compiled] = {}

    def on(self, dialect: Dialect) -> Compiled:
        """The statement as this dialect has it."""
        if (found := self._compiled.get(dialect)) is None:
            found = self._compiled[dialect] = self._compile(dialect)
        return found


CONDITIONS: Final = "/* conditions */"


class Filtered:
    """A read of the rows that meet some of its conditions.

    Args:
        whole: the read, with `CONDITIONS` where they belong, before all of its parameters.
        conditions: each by the name of its value.
    """

    def __init__(self, whole: Statement, conditions: Mapping[str, Statement]) -> None:
        self.whole = whole
        self.conditions = conditions
        self._known: dict[frozenset[str], Statement] = {}

    def by(self, names: Collection[str]) -> Statement:
        """The statement with the conditions of these names; others are ignored."""
        asked = frozenset(names)
        if (found := self._known.get(asked)) is None:
            wanted = [condition for name, condition in self.conditions.items() if name in asked]
            found = self._known[asked] = Statement(
                lambda dialect: _joined(self.whole.on(dialect), [each.on(dialect) for each in wanted])
            )
        return found


def _joined(whole: Compiled, conditions: Sequence[Compiled]) -> Compiled:
    return replace(
        whole,
        text=whole.text.replace(CONDITIONS, " AND ".join(each.text for each in conditions) or "1 = 1"),
        names=[*(name for each in conditions for name in each.names), *whole.names],
        constants={name: value for each in (*conditions, whole) for name, value in each.constants.items()},
    )


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no number")
    return value


_CONVERTERS: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "time": to_iso,
    "json": json.loads,
    "number": _number,
    "flag": bool,
}
