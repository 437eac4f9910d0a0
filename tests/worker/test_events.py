"""The catalogue is the whole truth about the log: what is emitted is in it, and what is in it is emitted."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.events import EVENTS, FIELDS, ROW_FIELDS, emit, markdown

ROOT = Path(__file__).parents[2]


def emitted() -> Iterator[tuple[str, ast.Call]]:
    for package in ("repo", "worker", "reaper"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "emit":
                    yield f"{file.name}:{node.lineno}", node


def test_every_emitted_event_is_in_the_catalogue_with_all_its_fields() -> None:
    seen = set()
    for where, call in emitted():
        assert isinstance(call.args[0], ast.Constant), where
        event = str(call.args[0].value)
        assert event in EVENTS, where
        seen.add(event)
        given = {keyword.arg for keyword in call.keywords}
        if len(call.args) > 1:
            given |= set(ROW_FIELDS)
        if None not in given:  # with ** it is checked where it runs: tests emit strictly
            assert given == set(EVENTS[event].fields), where
    assert seen == EVENTS.keys()


def test_every_field_is_explained_and_every_explanation_used() -> None:
    used = {name for event in EVENTS.values() for name in event.fields}
    assert used == FIELDS.keys()


def test_the_documentation_is_the_catalogue() -> None:
    assert (ROOT / "docs" / "events.md").read_text() == markdown()


def test_a_missing_or_unknown_field_is_an_error_in_tests() -> None:
    with pytest.raises(ValueError, match="owner"):
        emit("worker.stopped")
    with pytest.raises(ValueError, match="colour"):
        emit("worker.stopped", owner="me", colour="red")
