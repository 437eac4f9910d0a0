"""The runtime where no Docker is: each service's `command` as a local process.

For laptops, demonstrations and fault tests: no isolation, no images, no networks, no `restart`, no order by
`depends_on`, no `${VARIABLES}`; a service listens on the machine's own ports. What runs is read from the
kernel: each process carries its decky, service and specification in its environment, so that there is no
state to be wrong after a crash. A program that overwrites its environment (setproctitle) isn't found again.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from worker.runtimes.base import SHORTAGES, OperationFailed, RuntimeUnavailable, decky_directory
from worker.runtimes.process_service import Healthcheck, Service
from worker.runtimes.subprocesses import end, environment, exited, living, pids, plain_text, run, session_of
from worker.settings import WorkerSettings

_SETTLE: Final = 0.2
"""Seconds that a service without a healthcheck has to live to count as up."""
_POLL: Final = 0.2
"""Seconds between two tries of a healthcheck, at most."""
_LOG_LINES: Final = 5
_LOG_BYTES: Final = 4096

# While execve(2) is at work, a process's environment reads as empty: for microseconds, at most half a second.
_LOOKS: Final = 500
_LOOK_EVERY: Final = 0.001
_SURELY_EMPTY: Final = 3
_ENV_START: Final = 47
_ENV_END: Final = 48

# Tells the service's first process from those that it starts, which inherit its environment.
_START: Final = ("/bin/sh", "-c", 'DECNET_LEADER=$$; export DECNET_LEADER; exec "$@"')


class _Process(NamedTuple):
    """A running process of a decky, as its environment tells."""

    pid: int
    service: str
    spec: str
    leader: bool


class _Detached(subprocess.Popen[bytes]):
    """A child that is meant to outlive this process, so that dropping it is no mistake to warn of."""

    def __del__(self, *_: object) -> None:
        pass


class ProcessRuntime:
    """Starts and stops the services of deckies as processes of this user.

    Args:
        state_dir: logs go to `deckies/<decky_name>/<service>.log` below it; processes that were started with
            another state directory are not touched.

    Services outlive this process, and a cancelled operation: the next operation on the decky puts it right.
    """

    name: Final = "process"

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._mark = f"DECNET_STATE={state_dir.resolve()}".encode()

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """One that keeps its logs below `state_dir`."""
        return cls(settings.state_dir)

    async def check(self) -> str:
        """Raise RuntimeUnavailable where the kernel can't tell what runs."""
        if not _environ(os.getpid()) or not hasattr(os, "pidfd_open"):
            raise RuntimeUnavailable("the process runtime needs Linux 5.3 or newer, with /proc mounted")
        return "local processes, not containers"

    async def apply(
        self,
        decky_name: str,
        document: dict[str, Any],
        *,
        lock_fd: int,
        on_line: Callable[[str], None],
        operation: str = "deploy",
    ) -> None:
        """Make the decky's processes exactly this document's services; see `worker.runtimes.base.Runtime`.

        The lock's descriptor is not passed on: services must not hold the lock for as long as they live.
        """
        directory = decky_directory(self._state_dir, decky_name)
        wanted = {name: Service.of(name, spec) for name, spec in document["services"].items()}
        leaders = {p.service: p for p in self._processes(decky_name) if p.leader}
        kept = {
            name: leaders[name].pid
            for name, service in wanted.items()
            if name in leaders and leaders[name].spec == service.spec
        }
        await self._end(decky_name, lambda process: process.service not in kept)
        try:
            async with asyncio.TaskGroup() as group:
                for name, service in wanted.items():
                    if name not in kept:
                        process = self._start(decky_name, service, directory)
                        on_line(f"{name} started")
                        group.create_task(_up(service, directory, process.pid, process, on_line))
                    elif service.healthcheck:
                        group.create_task(_up(service, directory, kept[name], None, on_line))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def remove(
        self,
        decky_name: str,
        *,
        lock_fd: int | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """End all processes of the decky; its logs stay."""
        await self._end(decky_name, lambda process: True)

    def running(self) -> list[str]:
        """The deckies of which any process runs, in the order of their names."""
        key = b"DECNET_DECKY="
        environments = [entries for pid in pids() if self._mark in (entries := _environ(pid))]
        marks = {entry for entries in environments for entry in entries if entry.startswith(key)}
        return sorted(os.fsdecode(mark.removeprefix(key)) for mark in marks)

    def _processes(self, decky_name: str) -> Iterator[_Process]:
        decky = f"DECNET_DECKY={decky_name}".encode()
        for pid in pids():
            entries = _environ(pid)
            if self._mark in entries and decky in entries:
                values = dict(os.fsdecode(entry).partition("=")[::2] for entry in entries)
                leader = values.get("DECNET_LEADER") == str(pid)
                yield _Process(pid, values.get("DECNET_SERVICE", ""), values.get("DECNET_SPEC", ""), leader)

    async def _end(self, decky_name: str, unwanted: Callable[[_Process], bool]) -> None:
        def find() -> list[int]:
            marked = {process.pid for process in self._processes(decky_name) if unwanted(process)}
            candidates = marked | {pid for pid in pids() if session_of(pid) in marked} if marked else marked
            return living(candidates, lambda pid: self._mark in _environ(pid) or session_of(pid) in marked)

        await end(find)

    def _start(self, decky_name: str, service: Service, directory: Path) -> "_Detached":
        marks = {
            "DECNET_STATE": str(self._state_dir.resolve()),
            "DECNET_DECKY": decky_name,
            "DECNET_SERVICE": service.name,
            "DECNET_SPEC": service.spec,
        }
        try:
            log = os.open(
                _log(directory, service),
                # Not to be held up where somebody has put a pipe in the log's place.
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK,
                0o600,
            )
            with os.fdopen(log, "ab") as output:
                process = _Detached(
                    [*_START, "sh", *service.command],
                    env=environment() | service.environment | marks,
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            raise OperationFailed(f"service {service.name} can't be started: {error.strerror}") from None
        _reap_when_ended(process)
        return process


def _reap_when_ended(process: _Detached) -> None:
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(process.pid)

    def reap() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.wait()

    loop.add_reader(pidfd, reap)


async def _up(
    service: Service, directory: Path, pid: int, process: _Detached | None, on_line: Callable[[str], None]
) -> None:
    """Return once the service is up, as in `docker compose up --wait`; raise OperationFailed if it isn't."""
    if service.healthcheck is None:
        ended = await _ends_within(pid, _SETTLE)
    else:
        ended = await _ends_before_healthy(service, service.healthcheck, directory, pid, on_line)
    if ended:
        status = process.wait() if process else 0
        how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
        raise OperationFailed(
            f"service {service.name} {how if process else 'exited'}: {_last_lines(directory, service)}"
        )


async def _ends_before_healthy(
    service: Service, check: Healthcheck, directory: Path, pid: int, on_line: Callable[[str], None]
) -> bool:
    """Try the healthcheck until it passes (False) or the service ends (True).

    It is tried more often than its interval says, so that a service that is ready is not waited for; the time
    that it has to become healthy stays that of Compose.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + check.start_period + check.interval * check.retries
    env = environment() | service.environment
    reason = reported = ""
    while True:
        try:
            async with asyncio.timeout(check.timeout):
                tried = await run(check.command, env=env, cwd=directory)
            reason = "\n".join(tried.lines[-_LOG_LINES:]) or f"exit status {tried.status}"
            if tried.status == 0:
                return False
        except TimeoutError:
            reason = f"no answer in {check.timeout:g} s"
        if reason != reported:
            on_line(f"{service.name} is not healthy yet: {reason}")
            reported = reason
        if loop.time() >= give_up:
            raise OperationFailed(f"service {service.name} is unhealthy: {reason}")
        if await _ends_within(pid, min(check.interval, _POLL)):
            return True


async def _ends_within(pid: int, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await exited(pid)
    except TimeoutError:
        return False
    return True


def _log(directory: Path, service: Service) -> Path:
    return directory / f"{service.name}.log"


def _last_lines(directory: Path, service: Service) -> str:
    with _log(directory, service).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
        text = plain_text(log.read())
    return "\n".join(text.strip().splitlines()[-_LOG_LINES:]) or "no output"


def _environ(pid: int) -> list[bytes]:
    """The environment that a process was started with; nothing where that can't be read."""
    empty = 0
    with contextlib.suppress(OSError):
        for _look in range(_LOOKS):
            if environ := Path(f"/proc/{pid}/environ").read_bytes():
                return environ.split(b"\0")
            if _has_no_environment(pid) and (empty := empty + 1) == _SURELY_EMPTY:
                break
            time.sleep(_LOOK_EVERY)
    return []


def _has_no_environment(pid: int) -> bool:
    """Whether a process was started with an empty environment, see proc_pid_stat(5).

    In execve(2) there is no end of it yet, and for an instant an empty one: one look is not enough.
    Raises OSError for one that has no memory of its own: a thread of the kernel, a zombie.
    """
    Path(f"/proc/{pid}/exe").readlink()
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[_ENV_END] != b"0" and fields[_ENV_START] == fields[_ENV_END]
