"""The catalogue is the whole truth about the log: what is emitted is in it, and what is in it is emitted."""

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from repo.base import OUTCOMES
from tests.docs.generate.events import markdown
from worker.logging.emit import emit, emit_end
from worker.logging.events import EVENTS, ROW_FIELDS
from worker.logging.fields import FIELDS

ROOT = Path(__file__).parents[3]
ENDS = set(OUTCOMES)
ROW: dict[str, Any] = {
    "id": "0190",
    "decky_name": "decky-01",
    "operation": "deploy",
    "host_uuid": None,
    "attempt": 1,
    "retry_of": None,
    "started_at": "2026-01-01T00:00:00+00:00",
    "claimed_at": None,
    "owner": None,
    "payload": {"compose": "top secret"},
}


def calls(function: str) -> Iterator[tuple[str, ast.Call]]:
    for package in ("repo", "worker", "reaper"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id == function
                ):
                    yield f"{file.name}:{node.lineno}", node


def test_every_emitted_event_is_in_the_catalogue_with_all_its_fields() -> None:
    seen = {f"lifecycle.{outcome}" for outcome in ENDS}
    for where, call in calls("emit"):
        event = call.args[0]
        if isinstance(event, ast.JoinedStr):
            assert where.startswith("emit.py"), where  # emit_end
            continue
        assert isinstance(event, ast.Constant), where
        assert event.value in EVENTS, where
        seen.add(event.value)
        given = {keyword.arg for keyword in call.keywords} - {"exc_info"}
        if len(call.args) > 1:
            given |= set(ROW_FIELDS)
        assert given == set(EVENTS[event.value].fields), where
    assert seen == EVENTS.keys()


def test_whatever_is_logged_is_logged_through_the_catalogue() -> None:
    for package in ("repo", "worker", "reaper"):
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text()
            assert "get_logger" not in text or file.name == "emit.py", file
            assert "getLogger" not in text or file.name in {"emit.py", "setup.py", "engine.py"}, file


@pytest.mark.parametrize("outcome", sorted(ENDS))
def test_every_end_is_one_line_with_the_canonical_fields(outcome: str) -> None:
    with capture_logs() as lines:
        emit_end(ROW, outcome)  # type: ignore[arg-type]
    assert [line["event"] for line in lines] == [f"lifecycle.{outcome}"]
    assert lines[0]["outcome"] == outcome
    assert {"queue_wait_s", "duration_s", "runtime", "attempt", "retry_of", "error"} <= lines[0].keys()
    assert "top secret" not in str(lines)


def test_levels_are_what_an_operator_is_to_be_woken_for() -> None:
    errors = {name for name, event in EVENTS.items() if event.level == logging.ERROR}
    assert errors == {
        *(
            "lifecycle.failed",
            "lifecycle.timed_out",
            "lifecycle.swept",
            "lifecycle.expired",
            "lifecycle.lost",
            "runtime.unreachable",
        ),
        *("queue.unreachable", "store.unavailable"),
        *("worker.job_crashed", "worker.loop_failed", "reaper.sweep_failed", "daemon.failed"),
        *("daemon.reload_failed", "daemon.task_failed", "host.lost"),
    }


def test_every_field_is_explained_and_every_explanation_used() -> None:
    used = {name for event in EVENTS.values() for name in event.fields}
    assert used == FIELDS.keys()
    for name, field in FIELDS.items():
        assert field.types, name
        assert (field.unit == "seconds") == name.endswith("_s"), name


def test_the_documentation_is_the_catalogue() -> None:
    assert (ROOT / "docs" / "events.md").read_text() == markdown()


def test_fields_stand_in_the_order_of_the_catalogue() -> None:
    with capture_logs() as lines:
        emit("lifecycle.redelivered", delivery=2, **{"lifecycle_id": "0190", **_row()})
    shown = [name for name in lines[0] if name not in {"event", "log_level"}]
    assert shown == list(EVENTS["lifecycle.redelivered"].fields)


def test_a_missing_unknown_or_wrong_field_is_an_error_in_tests() -> None:
    with pytest.raises(ValueError, match="owner"):
        emit("worker.stopped")
    with pytest.raises(ValueError, match="colour"):
        emit("worker.stopped", owner="me", colour="red")
    with pytest.raises(ValueError, match="down_s"):
        emit("queue.recovered", redis="redis://localhost", down_s="3 s")
    with pytest.raises(KeyError):
        emit("worker.yawned")


def _row() -> dict[str, Any]:
    return {name: ROW[name] for name in reversed(ROW_FIELDS[1:])}
