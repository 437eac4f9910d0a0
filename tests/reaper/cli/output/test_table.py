"""Rows as people read them, and why a pending one waits."""

from datetime import timedelta
from typing import Any

import click
import pytest

from reaper.cli.output.progress_line import in_short, waits_for
from reaper.cli.output.table import Spans, spans, table
from repo.base import Lifecycle
from tests.support.store.rows import NOON, row
from worker.clock import short_span

NOW = NOON + timedelta(seconds=100)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (119, "119s"),
        (120, "2m"),
        (7200, "2h"),
        (172800, "2d"),
    ],
)
def test_spans_are_short(seconds: float | None, said: str) -> None:
    assert short_span(seconds) == said


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "pending"}, Spans(100, 100, None)),
        ({"status": "running", "claimed_at": 30}, Spans(100, 30, 70)),
        ({"status": "succeeded", "claimed_at": 30, "completed_at": 50}, Spans(100, 30, 20)),
        ({"status": "failed", "completed_at": 50}, Spans(100, None, None)),
    ],
)
def test_open_rows_count_on_and_ended_ones_stand(fields: dict[str, Any], expected: Spans) -> None:
    assert spans(row(**fields), NOW) == expected


def lines(rows: list[Lifecycle], width: int | None, **more: Any) -> list[str]:
    return [click.unstyle(line) for line in table(rows, width, moment=NOW, **more)]


def test_an_error_stands_in_its_row_where_there_is_room() -> None:
    rows = [row(status="failed", error="no room\nhere", completed_at=5)]
    assert lines(rows, 120)[1].endswith("  no room here")
    narrow = lines(rows, 70)
    assert narrow[2] == "    no room here"
    assert narrow[1].split()[0] == rows[0]["id"][-8:]


def test_a_long_error_is_cut_to_a_line_or_told_in_full() -> None:
    rows = [row(status="failed", error="word " * 100, completed_at=5)]
    short = lines(rows, 80)
    assert len(short) == 3
    assert len(short[2]) == 80
    assert short[2].endswith("…")
    full = lines(rows, 80, whole_errors=True)
    assert " ".join(" ".join(full[2:]).split()) == ("word " * 100).strip()
    assert max(map(len, full)) <= 80


def test_hosts_have_a_column_where_there_are_any() -> None:
    assert "host" not in lines([row()], None)[0].split()
    assert "host" in lines([row(), row(2, host_uuid="h1")], None)[0].split()


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 120])
def test_a_row_is_a_line_of_any_terminal(width: int) -> None:
    rows = [row(number, "d" * 60, "running", host_uuid="h" * 36, claimed_at=3) for number in (1, 2)]
    short = [row(number, status="running", claimed_at=3) for number in (1, 2)]
    for shown in (lines(rows, width) if width > 40 else [], lines(short, width) if width > 35 else []):
        assert max(map(len, shown), default=0) <= width
    assert len(lines(rows, width)) == 3
    assert lines(short, width)[1].split()[:2] == [
        short[0]["id"][-8:] if width < 100 else short[0]["id"],
        "decky-01",
    ]


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ([], ""),
        ([row(1, status="running", operation="mutate")], "waiting for decky-01's running mutate"),
        ([row(1, status="running"), row(2)], "waiting for decky-01's running deploy and 1 more"),
        ([row(1)], "waiting for decky-01's pending deploy"),
        (
            [row(1, "decky-02", "running"), row(2, "decky-03")],
            "waiting for a free worker; before it 1 running, 1 pending",
        ),
        ([row(1, host_uuid="h1", status="running")], ""),
        ([row(9, status="pending")], ""),
    ],
)
def test_why_a_row_waits(before: list[Lifecycle], said: str) -> None:
    asking = row(5)
    assert waits_for(asking, [*before, asking]) == said


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (" Container decky-01-decky-01-ssh-1  Waiting", "decky-01-ssh Waiting"),
        (" Container decky-01-decky-01-1  Healthy", "decky-01 Healthy"),
        (" Network decky-01_default  Creating", "Network decky-01_default Creating"),
        (" Container decky-02-web-1  Starting", "Container decky-02-web-1 Starting"),
        ("#4 [2/3] RUN \x1b[2Jmake\n", "#4 [2/3] RUN [2Jmake"),
    ],
)
def test_what_compose_does_is_told_by_service(line: str, shown: str) -> None:
    assert in_short(line, "decky-01") == shown
