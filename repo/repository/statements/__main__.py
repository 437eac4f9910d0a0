"""Prints prepared.json: `python -m repo.repository.statements`."""

import json
from dataclasses import asdict
from typing import Any, get_args

from repo.models.statement import Dialect, Filtered, Statement
from repo.repository.statements import history, reads, writes


def prepared() -> dict[str, Any]:
    """Each statement that stands in one of our modules, as every dialect has it."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": entry
        for module in (history, reads, writes)
        for name, found in sorted(vars(module).items())
        if (entry := _entry(found)) is not None
    }


def _entry(found: object) -> dict[str, Any] | None:
    match found:
        case Statement():
            return _statement(found)
        case Filtered(whole=whole, conditions=conditions):
            return {"whole": _statement(whole), "conditions": _entry(conditions)}
        case dict() if any(isinstance(each, Statement) for each in found.values()):
            return {name: _statement(each) for name, each in found.items()}
    return None


def _statement(statement: Statement) -> dict[str, Any]:
    return {
        "one_at_a_time": statement.one_at_a_time,
        "on": {dialect: asdict(statement.on(dialect)) for dialect in get_args(Dialect)},
        "of_many": statement.of_many and {"postgresql": asdict(statement.of_many.on("postgresql"))},
    }


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(known)}" for name, known in prepared().items()]
    print("{", ",\n".join(lines), "}", sep="\n")  # noqa: T201
