"""The order of ids is the order of acceptance."""

import threading
import time
from uuid import UUID

import pytest

from repo.repository.ids import id_after, new_id


def test_ids_are_version_7_and_say_when() -> None:
    before = time.time_ns() // 1_000_000
    made = UUID(new_id())
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_ids_of_several_threads_differ_and_each_thread_sees_them_rise() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda mine=mine: mine.extend(new_id() for _ in range(2_000)))
        for mine in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 8_000


def test_ids_rise_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    an_hour_ago = time.time_ns() - 3_600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: an_hour_ago)
    assert first < new_id() < new_id()


def test_the_id_after_sorts_right_behind() -> None:
    first = new_id()
    after, second = id_after(first), new_id()
    assert first < after < second
    assert first < after < id_after(after) < second
    assert UUID(after).int == UUID(first).int + 1


@pytest.mark.parametrize(
    "foreign",
    [
        "a03997e8-62f2-437e-8594-d7b13ac2b588",
        "no-uuid",
        "01A209BD-9923-7E2B-B396-E5F61965B201",
        "01a209bd-9923-7ed1-bfff-ffffffffffff",
    ],
)
def test_what_is_no_version_7_is_followed_by_a_new_id(foreign: str) -> None:
    assert UUID(id_after(foreign)).version == 7
    assert id_after(foreign) != id_after(foreign)
