"""The replay lets through what the model does, and nothing else."""

from typing import Any

from tests.model.replay import replay

A, B, RETRY = "01-a", "02-b", "01-a-retry"


def _line(event: str, lifecycle_id: str, **more: Any) -> dict[str, Any]:
    facts = {"decky_name": "decky-01", "host_uuid": None, "attempt": 1, "retry_of": None, "owner": "w1"}
    facts |= {"timestamp": "2", "retry_id": None, "outcome": event.removeprefix("lifecycle.")}
    return {"event": event, "lifecycle_id": lifecycle_id, **facts, **more}


def _moves(*moves: str) -> list[tuple[str, str | None, str | None]]:
    state: dict[str, str] = {}
    history: list[tuple[str, str | None, str | None]] = []
    for move in moves:
        lifecycle_id, after = move.split()
        history.append((lifecycle_id, state.get(lifecycle_id), after))
        state[lifecycle_id] = after
    return history


ACCEPTED = [_line("lifecycle.accepted", A), _line("lifecycle.accepted", B)]


def test_a_worker_dies_and_its_row_is_retried_before_the_next_one() -> None:
    history = _moves(
        *(f"{A} pending", f"{B} pending", f"{A} running", f"{A} failed", f"{RETRY} pending"),
        *(f"{RETRY} running", f"{RETRY} succeeded", f"{B} running", f"{B} succeeded"),
    )
    lines = [
        *ACCEPTED,
        _line("lifecycle.running", A),
        _line("lifecycle.survivors_ended", A, timestamp="1"),
        _line("lifecycle.swept", A, retry_id=RETRY),
        _line("lifecycle.accepted", RETRY, attempt=2, retry_of=A),
        _line("lifecycle.succeeded", RETRY, attempt=2, retry_of=A),
    ]
    assert replay(history, lines) == []


def test_out_of_turn() -> None:
    assert replay(_moves(f"{A} pending", f"{B} pending", f"{B} running"), ACCEPTED) == [
        f"{B}: claimed before {A}"
    ]


def test_two_at_once() -> None:
    moves = _moves(f"{A} pending", f"{A} running", f"{B} pending", f"{B} running")
    assert f"{B}: claimed while {A} ran" in replay(moves, ACCEPTED)


def test_a_terminal_row_changes() -> None:
    moves = _moves(f"{A} pending", f"{A} running", f"{A} failed", f"{A} succeeded")
    assert replay(moves, ACCEPTED) == [f"{A}: a terminal row changed"]


def test_ended_by_somebody_else() -> None:
    moves = _moves(f"{A} pending", f"{A} running", f"{A} succeeded")
    lines = [*ACCEPTED, _line("lifecycle.running", A), _line("lifecycle.succeeded", A, owner="w2")]
    assert replay(moves, lines) == [f"{A}: claimed by ['w1'], ended by w2"]


def test_ended_twice() -> None:
    moves = _moves(f"{A} pending", f"{A} running", f"{A} failed")
    lines = [*ACCEPTED, _line("lifecycle.swept", A), _line("lifecycle.succeeded", A)]
    assert f"{A}: ended as ['lifecycle.succeeded', 'lifecycle.swept']" in replay(moves, lines)


def test_survivors_after_the_end() -> None:
    moves = _moves(f"{A} pending", f"{A} running", f"{A} failed")
    lines = [
        *ACCEPTED,
        _line("lifecycle.swept", A),
        _line("lifecycle.survivors_ended", A, timestamp="3"),
    ]
    assert replay(moves, lines) == [f"{A}: its survivors were ended after it"]


def test_a_retry_of_what_was_final_and_one_too_many() -> None:
    moves = _moves(f"{A} pending", f"{A} running", f"{A} failed", f"{RETRY} pending")
    lines = [
        *ACCEPTED,
        _line("lifecycle.failed", A, retry_id=RETRY),
        _line("lifecycle.accepted", RETRY, attempt=3, retry_of=A),
    ]
    assert replay(moves, lines) == [f"{RETRY}: attempt 3", f"{RETRY}: a retry of what ended as failed"]


def test_a_master_logs_no_times() -> None:
    moves = _moves(f"{A} pending", f"{A} failed")
    line = _line("lifecycle.cancelled", A, owner=None)
    del line["timestamp"]
    assert replay(moves, [*ACCEPTED, line]) == []
