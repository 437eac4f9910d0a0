"""What the daemons tell systemd, read from the socket that systemd would read."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.service.systemd import Notifier, death_reason, invocation_id, is_journal


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


def environ_of(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def received(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def silent(manager: socket.socket) -> bool:
    manager.setblocking(False)
    try:
        manager.recv(4096)
    except BlockingIOError:
        return True
    return False


def test_ready_carries_the_status(manager: socket.socket) -> None:
    Notifier(environ_of(manager)).ready("idle, runtime compose")
    assert received(manager) == {"READY": "1", "STATUS": "idle, runtime compose"}


def test_a_status_is_sent_when_it_changes_and_then_only(manager: socket.socket) -> None:
    notifier = Notifier(environ_of(manager))
    notifier.ready("idle")
    notifier.status("idle")
    notifier.status("3 running,\n12 pending")
    notifier.status("3 running,\n12 pending")
    assert received(manager)["READY"] == "1"
    assert received(manager) == {"STATUS": "3 running, 12 pending"}
    assert silent(manager)


@pytest.mark.parametrize(
    ("tell", "message"),
    [
        (Notifier.stopping, {"STOPPING": "1"}),
        (lambda notifier: notifier.extend_timeout(1.5), {"EXTEND_TIMEOUT_USEC": "1500000"}),
    ],
)
def test_messages_of_stopping(
    manager: socket.socket, tell: Callable[[Notifier], None], message: dict[str, str]
) -> None:
    tell(Notifier(environ_of(manager)))
    assert received(manager) == message


def test_reloading_says_when_on_the_clock_that_systemd_compares(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    Notifier(environ_of(manager)).reloading()
    message = received(manager)
    assert message["RELOADING"] == "1"
    assert before <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_an_abstract_socket_is_reached() -> None:
    name = f"decnet-reaper-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(30)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert received(listener) == {"STOPPING": "1"}


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody-listens", "not a socket"])
def test_without_systemd_nothing_happens_and_nothing_is_raised(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("idle")
    notifier.status("busy")
    notifier.reloading()
    notifier.extend_timeout(1)
    notifier.stopping()


def test_a_manager_that_reads_nothing_does_not_stop_the_daemon(manager: socket.socket) -> None:
    notifier = Notifier(environ_of(manager))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while flood.sendto(b"STATUS=full", manager.getsockname()):
                pass
    notifier.stopping()
    assert received(manager) == {"STATUS": "full"}


@pytest.mark.anyio
async def test_the_watchdog_is_fed_from_the_event_loop(manager: socket.socket) -> None:
    manager.setblocking(False)
    notifier = Notifier(environ_of(manager, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid())))
    feeding = asyncio.create_task(notifier.watchdog(lambda: True))
    for _ in range(3):
        assert await asyncio.get_running_loop().sock_recv(manager, 4096) == b"WATCHDOG=1"
    feeding.cancel()


@pytest.mark.anyio
async def test_the_watchdog_starves_while_something_is_not_well(manager: socket.socket) -> None:
    manager.setblocking(False)
    looks = asyncio.Semaphore(0)

    def unwell() -> bool:
        looks.release()
        return False

    notifier = Notifier(environ_of(manager, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid())))
    feeding = asyncio.create_task(notifier.watchdog(unwell))
    for _ in range(3):
        await looks.acquire()
    feeding.cancel()
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}]
)
async def test_no_watchdog_for_this_process_feeds_none(
    manager: socket.socket, watchdog: dict[str, str]
) -> None:
    await Notifier(environ_of(manager, **watchdog)).watchdog(lambda: True)
    assert silent(manager)


@pytest.mark.parametrize(
    ("result", "code", "status", "reason"),
    [
        ("oom-kill", "killed", "KILL", "oom-kill"),
        ("watchdog", "dumped", "ABRT", "watchdog"),
        ("signal", "killed", "KILL", "signal KILL"),
        ("core-dump", "dumped", "SEGV", "core-dump SEGV"),
        ("exit-code", "exited", "3", "exit-code 3"),
        ("timeout", "killed", "KILL", "timeout"),
        ("success", "exited", "0", ""),
    ],
)
def test_the_reason_of_a_death_is_in_the_managers_words(
    result: str, code: str, status: str, reason: str
) -> None:
    assert death_reason({"SERVICE_RESULT": result, "EXIT_CODE": code, "EXIT_STATUS": status}) == reason


def test_nobody_tells_a_reason_outside_systemd() -> None:
    assert death_reason({}) == ""


def test_only_the_units_own_process_has_its_invocation() -> None:
    mine = {"INVOCATION_ID": "0" * 32, "SYSTEMD_EXEC_PID": str(os.getpid())}
    assert invocation_id(mine) == "0" * 32
    assert invocation_id(mine | {"SYSTEMD_EXEC_PID": str(os.getppid())}) is None
    assert invocation_id({"INVOCATION_ID": "0" * 32}) is None
    assert invocation_id({}) is None


def test_a_stream_is_the_journal_if_it_is_the_very_one(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(stream, environ)
        assert not is_journal(other, environ)
        assert not is_journal(stream, {})
    assert not is_journal(stream, environ)
    assert not is_journal(sys.__stderr__ or sys.stderr, {"JOURNAL_STREAM": "nonsense"})
