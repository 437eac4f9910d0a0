"""Locks and owners are asked of the kernel, so these tests make real processes and kill them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.liveness.holders import Hold, end_holder
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.locks import DeckyLocks, Holder
from worker.liveness.owner import Owner, start_ticks

SLEEPER = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]


def sleeper(*fds: int) -> subprocess.Popen[str]:
    child = subprocess.Popen(SLEEPER, pass_fds=fds, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


@pytest.fixture
def locks(tmp_path: Path) -> DeckyLocks:
    return DeckyLocks(LockDirectory(tmp_path / "locks"))


def mine(pid: int = 0) -> Owner:
    """This process as an owner, or another one of that pid."""
    owner = Owner.mine("locks")
    return owner._replace(pid=pid, started=start_ticks(pid) or 0) if pid else owner


def pids(holds: list[Hold]) -> list[int]:
    return [hold.pid for hold in holds]


def test_a_decky_has_one_holder_at_a_time(locks: DeckyLocks) -> None:
    first = locks.try_lock("decky-01", None)
    assert first is not None
    assert locks.try_lock("decky-01", None) is None
    with first:
        pass
    again = locks.try_lock("decky-01", None)
    assert again is not None
    with again:
        assert locks.path("decky-01", None).stat().st_mode & 0o777 == 0o600


def test_hosts_and_deckies_do_not_share_a_lock(locks: DeckyLocks) -> None:
    names = [
        ("decky-01", None),
        ("decky-01", "h1"),
        ("decky-01-h1", None),
        ("a/../b", None),
        ("a@b", None),  # of another writer: the client takes no such name
        ("a", "b"),
        ("a@b/c", None),
        ("a", "b/c"),
        ("a@b", "c"),
        ("a", "b@c"),
    ]
    assert len({locks.path(*name) for name in names}) == len(names)
    assert all(locks.path(*name).parent == locks.directory.path for name in names)


def test_a_child_that_inherited_the_lock_keeps_it_and_is_found(locks: DeckyLocks) -> None:
    lock = locks.try_lock("decky-01", None)
    assert lock is not None
    with lock:
        lock.write(Holder("some-id", "some-owner", 12.5))
        child = sleeper(lock.fd)
        assert pids(lock.survivors()) == [child.pid]
    bystander = os.open(locks.path("decky-01", None), os.O_RDWR)
    try:
        assert locks.try_lock("decky-01", None) is None
        assert [hold[:2] for hold in locks.holders("decky-01", None)] == [(child.pid, os.getpid())]
        assert pids(locks.survivors("decky-01", None, mine())) == [child.pid]
        assert locks.survivors("decky-01", None, mine(os.getppid())) == []
        assert locks.try_lock_or_read("decky-01", None) == (None, Holder("some-id", "some-owner", 12.5))
    finally:
        os.close(bystander)
        end(child)
    free = locks.try_lock("decky-01", None)
    assert free is not None
    with free:
        assert [hold[:2] for hold in locks.holders("decky-01", None)] == [(os.getpid(), os.getpid())]
        # Whoever took the lock itself is nobody's survivor: it may be another worker, or another reaper.
        assert locks.survivors("decky-01", None, mine()) == []


def test_only_a_holder_is_ended_never_an_innocent_process(locks: DeckyLocks) -> None:
    lock = locks.try_lock("decky-01", None)
    assert lock is not None
    with lock:
        survivor = sleeper(lock.fd)
    innocent = sleeper()
    try:
        (hold,) = locks.holders("decky-01", None)
        assert not end_holder(hold._replace(pid=innocent.pid))
        assert end_holder(hold)
        assert survivor.wait() == -signal.SIGKILL
        assert innocent.poll() is None
        assert not end_holder(hold)
    finally:
        end(innocent)
        end(survivor)


def test_an_owner_lives_as_long_as_its_process() -> None:
    child = sleeper()
    owner = mine(child.pid)
    assert owner.alive
    assert Owner.parse(str(owner)) == owner
    reused = owner._replace(started=owner.started - 1)
    assert not reused.alive
    reused.kill()
    assert child.poll() is None
    assert not owner._replace(boot="another").alive
    owner.kill()
    while child.poll() is None:
        time.sleep(0.001)
    assert not owner.alive
    assert owner.open_pidfd() is None
    end(child)


def test_a_zombie_is_dead() -> None:
    child = sleeper()
    owner = mine(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive
    end(child)


@pytest.mark.parametrize(
    "text",
    [None, "", "me", "a/b/c/d/e/f", "a/b/1/2/c", "a/b/1/2/c/d/e", "a/b/0/2/c/d", "a/b/9999999999/2/c/d"],
)
def test_what_is_no_owner_is_none(text: str | None) -> None:
    assert Owner.parse(text) is None


def test_an_owner_is_found_whose_program_s_name_the_kernel_cut_within_a_letter(tmp_path: Path) -> None:
    program = shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / ("é" * 8))
    child = subprocess.Popen([program, "600"])
    owner = mine(child.pid)
    assert owner.started
    assert owner.alive
    child.kill()
    child.wait()
    assert not owner.alive
