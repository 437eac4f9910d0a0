"""The statements of `repo.repository.statements`, compiled ahead into prepared.json.

SQLAlchemy and SQLModel, which they are written with, took two thirds of a daemon's start, and are needed for
nothing else once the schema is there, but for an update of whatever fields a caller names, which is not in
the file. `./run docs` makes it anew, and a test says when.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo.models.statement import Compiled, Dialect, Filtered, Statement

__all__ = ["history", "reads", "writes"]

if TYPE_CHECKING:
    from repo.repository.statements import history, reads, writes

FILE = Path(__file__).with_suffix(".json")


class _Prepared:
    """Stands for one module of statements."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if (known := _known().get(f"{self._module}.{name}")) is None:
            found = getattr(import_module(f"repo.repository.statements.{self._module}"), name)
        else:
            found = _entry(known)
        setattr(self, name, found)
        return found


def _entry(known: Mapping[str, Any]) -> Statement | Filtered | dict[str, Statement]:
    if "on" in known:
        return _statement(known)
    if "whole" in known:
        conditions = known["conditions"].items()
        return Filtered(_statement(known["whole"]), {name: _statement(each) for name, each in conditions})
    return {name: _statement(each) for name, each in known.items()}


def _statement(known: Mapping[str, Any]) -> Statement:
    return Statement(
        _compiled(known["on"]),
        one_at_a_time=known["one_at_a_time"],
        of_many=Statement(_compiled(known["of_many"])) if known["of_many"] else None,
    )


def _compiled(on: Mapping[str, Any]) -> Callable[[Dialect], Compiled]:
    return lambda dialect: Compiled(**on[dialect])


@cache
def _known() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


if not TYPE_CHECKING:
    history, reads, writes = map(_Prepared, ("history", "reads", "writes"))
