"""What the log says of a pass: one line if it did anything, a sign of life once a minute, else nothing."""

from collections import Counter
from datetime import timedelta
from typing import Any

from structlog.testing import capture_logs

from reaper.sweep.report import Report, SignOfLife
from worker.clock import now


def report(*seen: Any, **counts: int) -> Report:
    return Report(list(seen), Counter(counts), [], set(), True)


def pending(seconds: float) -> Any:
    return {"status": "pending", "started_at": (now() - timedelta(seconds=seconds)).isoformat()}


def test_a_pass_that_did_nothing_is_not_told() -> None:
    with capture_logs() as lines:
        report(pending(5)).log("cron", 0.1)
    assert lines == []


def test_a_pass_that_did_something_is_one_line_with_what_it_did() -> None:
    with capture_logs() as lines:
        report(pending(5), failed=2, retried=1).log("death", 0.1234)
    (line,) = lines
    assert (line["event"], line["trigger"], line["rows"]) == ("reaper.swept", "death", 1)
    assert (line["failed"], line["retried"], line["redelivered"]) == (2, 1, 0)
    assert line["duration_s"] == 0.123


def test_the_sign_of_life_tells_the_oldest_row_that_waits_and_comes_once_a_minute() -> None:
    sign_of_life = SignOfLife()
    with capture_logs() as lines:
        for _ in range(3):
            sign_of_life.log(report(pending(5), pending(900), {"status": "running", "started_at": ""}))
    (line,) = lines
    assert (line["event"], line["pending"], line["running"]) == ("reaper.watching", 2, 1)
    assert 900 <= line["oldest_pending_s"] < 5000
