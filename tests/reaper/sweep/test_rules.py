"""The reaper's table, one test a line."""

from typing import Any

import pytest

from reaper.settings import ReaperSettings, Seconds
from reaper.sweep.rules import Action, Do, Facts, backoff, decide
from repo.settings import as_setting

POLICY = ReaperSettings(
    max_attempts=2, pending_ttl=Seconds(3600), stale_after=Seconds(3600), overdue_grace=Seconds(30)
)


def row(status: str, **fields: Any) -> Any:
    return {
        "status": status,
        "attempt": 1,
        "deliveries": 1,
        "cancel_requested_at": None,
        "owner": "me",
        "host_uuid": None,
        **fields,
    }


def running(**facts: Any) -> Action:
    return decide(row("running"), Facts(**facts), POLICY)


def pending(deliveries: int = 1, **facts: Any) -> Action:
    return decide(row("pending", deliveries=deliveries), Facts(**{"delivery": "absent", **facts}), POLICY)


def test_a_running_row_whose_lock_is_free_failed_and_is_retried() -> None:
    assert running(lock_free=True, owner_alive=False) == (
        Do.FAIL,
        "worker died during operation",
        True,
        "swept",
    )


def test_a_lost_lock_is_an_orphan_even_if_its_owner_lives() -> None:
    assert running(lock_free=True, owner_alive=True).do is Do.FAIL


def test_an_owner_that_died_before_the_reaper_started_is_a_restarted_master() -> None:
    action = running(lock_free=True, owner_alive=False, owner_predates=True)
    assert action.error == "master restarted during operation"


def test_the_last_attempt_is_not_retried() -> None:
    orphan = Facts(lock_free=True, owner_alive=False)
    assert not decide(row("running", attempt=2), orphan, POLICY).retry


def test_a_row_that_another_program_set_running_is_not_repeated() -> None:
    orphan = Facts(lock_free=True, owner_alive=False)
    assert decide(row("running", owner=None), orphan, POLICY) == (
        Do.FAIL,
        "worker died during operation",
        False,
        "swept",
    )


def test_what_the_service_manager_knows_is_said() -> None:
    action = running(lock_free=True, owner_alive=False, died_of="oom-kill")
    assert action.error == "worker died during operation (oom-kill)"


def test_a_row_whose_worker_systemd_is_about_to_tell_of_waits_for_that() -> None:
    assert running(lock_free=True, owner_alive=False, reason_awaited=True).do is Do.LEAVE


def test_a_cancelled_orphan_says_so_and_is_not_retried() -> None:
    orphan = Facts(lock_free=True, owner_alive=False)
    cancelled = row("running", cancel_requested_at="2026-01-01T00:00:00+00:00")
    assert decide(cancelled, orphan, POLICY) == (Do.FAIL, "cancelled by operator", False, "cancelled")


def test_survivors_of_a_dead_owner_are_ended_first() -> None:
    assert running(lock_free=False, owner_alive=False).do is Do.END_SURVIVORS


@pytest.mark.parametrize("overdue", [None, -1.0, 0.0])
def test_a_living_owner_before_its_deadline_is_left_alone(overdue: float | None) -> None:
    assert running(lock_free=False, owner_alive=True, overdue=overdue, age=10**9).do is Do.LEAVE


def test_a_living_owner_past_its_deadline_is_warned_of() -> None:
    assert running(lock_free=False, owner_alive=True, overdue=29.0).do is Do.WARN


def test_a_living_owner_past_its_deadline_and_grace_is_ended() -> None:
    assert running(lock_free=False, owner_alive=True, overdue=31.0).do is Do.END_OWNER


def test_the_row_of_an_ended_owner_says_how_long_it_had() -> None:
    action = running(lock_free=True, owner_alive=False, timed_out=600.0)
    assert action.error == "timed out after 600 s"


def test_a_row_rung_a_moment_ago_is_left_alone() -> None:
    assert pending(since_enqueued=4.9).do is Do.LEAVE


def test_a_row_that_waits_its_turn_is_left_alone() -> None:
    assert pending(since_enqueued=600.0, first_in_line=False, queue_lost=True).do is Do.LEAVE


def test_a_row_in_a_long_queue_is_left_alone() -> None:
    assert pending(since_enqueued=600.0, delivery="queued", queue_lost=True).do is Do.LEAVE


@pytest.mark.parametrize(
    ("deliveries", "seconds"), [(0, 0), (1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (99, 60)]
)
def test_an_unclaimed_row_is_rung_again_with_back_off(deliveries: int, seconds: float) -> None:
    assert backoff(deliveries) == seconds
    assert pending(deliveries, since_enqueued=seconds).do is Do.ENQUEUE
    if seconds:
        assert pending(deliveries, since_enqueued=seconds - 0.1).do is Do.LEAVE


def test_a_row_that_was_picked_and_never_claimed_is_rung_again() -> None:
    assert pending(since_enqueued=5.0, delivery="picked").do is Do.ENQUEUE


def test_all_are_rung_at_once_after_the_queue_was_lost() -> None:
    assert pending(deliveries=9, since_enqueued=0.0, queue_lost=True).do is Do.ENQUEUE


def test_a_pending_row_past_its_time_to_live_failed() -> None:
    action = pending(age=3601.0, delivery="queued")
    assert action == (Do.FAIL, "not started within 1h", False, "expired")


def test_a_row_that_nobody_could_start_says_so() -> None:
    expired = Facts(served=False, age=3601.0)
    assert decide(row("pending"), expired, POLICY).error == (
        "not started within 1h: no worker serves the master's own deckies"
    )
    assert decide(row("pending", host_uuid="h9"), expired, POLICY).error == (
        "not started within 1h: no worker serves host h9"
    )


def test_a_row_of_a_host_that_nobody_can_serve_is_left_alone_until_it_is_old() -> None:
    for status in ("pending", "running"):
        assert decide(row(status), Facts(host="unserved", age=3599.0, lock_free=True), POLICY).do is Do.LEAVE
    old = Facts(host="unserved", served=False, age=3601.0)
    assert decide(row("running"), old, POLICY) == (Do.FAIL, "not seen for 1h", False, "swept")
    assert decide(row("pending", host_uuid="h9"), old, POLICY).outcome == "expired"


def test_a_row_of_a_host_with_a_reaper_of_its_own_is_never_touched() -> None:
    for status in ("pending", "running"):
        assert decide(row(status), Facts(host="other", age=10**9, lock_free=True), POLICY).do is Do.LEAVE


def test_a_row_that_was_claimed_under_another_lock_is_left_to_its_living_worker() -> None:
    for lock_free in (True, False):
        action = running(own_lock=False, lock_free=lock_free, owner_alive=True, overdue=10**9)
        assert action.do is Do.NOTE


def test_a_row_that_was_claimed_under_another_lock_ends_with_its_worker_and_what_that_left() -> None:
    assert running(own_lock=False, lock_free=True, owner_alive=False, survivors=True).do is Do.END_SURVIVORS
    assert running(own_lock=False, lock_free=True, owner_alive=False).do is Do.FAIL


def test_without_redis_nothing_is_rung_and_the_other_rules_hold() -> None:
    assert pending(since_enqueued=600.0, delivery="unknown").do is Do.LEAVE
    assert pending(age=3601.0, delivery="unknown").do is Do.FAIL


@pytest.mark.parametrize(
    ("seconds", "text"), [(3600, "1h"), (5400, "90m"), (90, "90s"), (86400, "1d"), (0.5, "0.5s")]
)
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    assert as_setting(seconds) == text


def test_a_running_row_of_a_lost_host_is_lost_and_retried() -> None:
    lost = "host lost during operation; what became of it is not known"
    assert running(host="lost") == (Do.FAIL, lost, True, "lost")
    assert not decide(row("running", attempt=2), Facts(host="lost"), POLICY).retry
    assert not decide(row("running", owner=None), Facts(host="lost"), POLICY).retry


def test_a_cancelled_row_of_a_lost_host_is_cancelled() -> None:
    cancelled = row("running", cancel_requested_at="2026-01-01T00:00:00+00:00")
    assert decide(cancelled, Facts(host="lost"), POLICY) == (
        Do.FAIL,
        "cancelled by operator",
        False,
        "cancelled",
    )


@pytest.mark.parametrize("host", ["absent", "other"])
def test_a_running_row_of_a_host_that_is_not_lost_is_its_own_reaper_s(host: str) -> None:
    assert running(host=host, age=86400).do is Do.LEAVE


@pytest.mark.parametrize("host", ["absent", "lost"])
def test_a_pending_row_waits_for_its_host_and_says_that_it_was_not_seen(host: Any) -> None:
    waiting = row("pending", host_uuid="h2")
    assert decide(waiting, Facts(host=host, age=3600, since_enqueued=3600), POLICY).do is Do.LEAVE
    assert decide(waiting, Facts(host=host, age=3601, served=False), POLICY) == (
        Do.FAIL,
        "not started within 1h: host h2 not seen",
        False,
        "expired",
    )
