"""Child processes that leave nothing behind: each in a session of its own, ended and awaited as a whole.

A process group is not enough: the docker client puts its plugins into a group of their own. All waiting
is for pidfds (pidfd_open(2), Linux 5.3), so that no process is signalled that has merely inherited a pid.
"""

import asyncio
import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TERM_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL."""
_LAST_LINES = 100
_LINE_BYTES = 4096
_PIPE_BYTES = 65536
_PIPE_READS = 16
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")

# What a child needs to find programs, the engine and its registries. Nothing else is passed on, since Compose
# interpolates its environment into documents, and ours holds secrets.
_PASSED_ON = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSH_AUTH_SOCK"),
    *(
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
        "XDG_RUNTIME_DIR",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
    ),
    *("DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION"),
)


class Finished(NamedTuple):
    """How a child ended: its exit status (negative: the signal) and the last lines that it printed."""

    status: int
    lines: list[str]


def environment(**more: str) -> dict[str, str]:
    """The little of our environment that children get, and what is added."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | more


async def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a command to its end, without input, in a session of its own.

    It dies with this process. When this coroutine is cancelled, the session gets SIGTERM, after TERM_GRACE
    seconds SIGKILL, and is awaited, however often it is cancelled meanwhile. What the command left running
    in its session is ended too. Raises OSError where the command can't be started.
    """
    with _Output(on_line) as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns once the child has begun; asyncio does the same
            [*_dying_with_us(), *command],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output.write_end,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        output.listen()
        grace = TERM_GRACE
        try:
            await exited(process.pid)
            grace = 0.0
        finally:
            try:
                # Not reaped yet, so that its pid still names this session and no other.
                await to_the_end(end(lambda: session(process.pid), grace))
            finally:
                process.kill()  # for where the event loop is being closed under us
                status = process.wait()
    return Finished(status, list(output.lines))


async def exited(pid: int) -> None:
    """Wait for the end of a process, without reaping it."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            await _readable([fd])
        finally:
            os.close(fd)


async def end(find: Callable[[], Iterable[int]], grace: float = TERM_GRACE) -> None:
    """End all processes that `find` names as pidfds: SIGTERM, SIGKILL after `grace` seconds (0: at once).

    Looks again until none is found, since a process can start others while it ends.
    """
    number = signal.SIGTERM if grace else signal.SIGKILL
    while found := list(find()):
        try:
            _send(found, number)
            async with asyncio.timeout(grace if number == signal.SIGTERM else None):
                await _readable(found)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            _send(found, signal.SIGKILL)
            raise
        finally:
            for fd in found:
                os.close(fd)
        number = signal.SIGKILL


async def to_the_end(work: Coroutine[None, None, None]) -> None:
    """Do `work` whole, however often the caller is cancelled; then tell the caller."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


def session(leader: int) -> list[int]:
    """Pidfds of the living processes of a session; the caller closes them."""
    return living(pid for pid in pids() if session_of(pid) == leader)


def living(candidates: Iterable[int], still: Callable[[int], bool] = lambda _: True) -> list[int]:
    """Pidfds of those candidates that live, and for which `still` holds once their pidfd is open."""
    found = []
    for pid in candidates:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            if not _ended(fd) and still(pid):
                found.append(fd)
            else:
                os.close(fd)
    return found


def pids() -> list[int]:
    """All processes that this one can see."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _dying_with_us() -> list[str]:
    # setpriv(1) sets PR_SET_PDEATHSIG, which in Python would need code between fork and exec. It is part of
    # util-linux; where that is missing, the lock that an operation's child inherits is what tells of it.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def session_of(pid: int) -> int | None:
    """The session of a process; None if there is no such process."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _send(pidfds: Iterable[int], number: signal.Signals) -> None:
    for fd in pidfds:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)


async def _readable(fds: Iterable[int]) -> None:
    """Wait until every one of these descriptors is readable; for a pidfd: until its process has ended."""
    loop = asyncio.get_running_loop()
    for fd in fds:
        ready = asyncio.Event()
        loop.add_reader(fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(fd)


class _Output:
    """The pipe that a child prints into: each line handed on, the last ones kept, never more in memory."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._on_line = on_line
        self._partial = b""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)

    def __enter__(self) -> "_Output":
        return self

    def listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._read_end, self._read)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read_end)
        # Bounded, since a process that left the session may go on printing.
        for _attempt in range(_PIPE_READS):
            if not self._read():
                break
        self._add(self._partial)
        os.close(self._read_end)
        os.close(self.write_end)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._read_end, _PIPE_BYTES)
        except BlockingIOError:
            return False
        *whole, rest = re.split(rb"[\r\n]+", self._partial + chunk)
        for line in whole:
            self._add(line)
        self._partial = rest[:_LINE_BYTES]
        return True

    def _add(self, raw: bytes) -> None:
        line = plain_text(raw[:_LINE_BYTES]).rstrip()
        if not line:
            return
        self.lines.append(line)
        if self._on_line is not None:
            self._on_line(line)


def plain_text(raw: bytes) -> str:
    """Text as a terminal would show it: no escape sequences, no control characters but new lines and tabs."""
    text = _ESCAPE.sub("", raw.decode(errors="replace"))
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
