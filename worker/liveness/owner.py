"""Who works on a row: one life of one worker process.

An owner is named by boot, pid, start time, a random part and its lock directory, and is never reused. Whether
it lives is asked of the kernel: the pid exists, is no zombie, and started when the name says.
"""

import contextlib
import os
import re
import secrets
import signal
import socket
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple, Self

from worker.service.systemd import invocation_id

_INVOCATION_ID_LENGTH = 32
_OWNER = re.compile(r"([^/]*)/([^/]+)/([1-9][0-9]{0,8})/([0-9]{1,18})/([^/]+)/([^/]+)")


@cache
def boot_id() -> str:
    """This boot's id; units sweep it in as $DECNET_REAPER_BOOT_ID, since `ProcSubset=pid` hides it."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except FileNotFoundError:
        text = os.environ.get("DECNET_REAPER_BOOT_ID", "")
    return text.strip().replace("-", "") or "unknown"


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone (a zombie counts as gone).

    proc_pid_stat(5): the fields after the command name, which may itself hold blanks, brackets, and bytes
    that are no text.

    Raises:
        PermissionError: there is one, of another user, that this user may not look at (`hidepid`, proc(5)).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        # Hidden or gone: whoever may not be signalled is there.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def exists(pid: int) -> bool:
    """Whether there is a process of this pid, whosever."""
    try:
        return start_ticks(pid) is not None
    except PermissionError:
        return True


class Owner(NamedTuple):
    """One life of one worker.

    Attributes:
        host: host name, for people.
        boot: the boot id.
        pid: process id.
        started: clock ticks since boot.
        token: random part; the unit's invocation id where systemd runs the worker.
        locks: id of the lock directory that it takes its locks in.
    """

    host: str
    boot: str
    pid: int
    started: int
    token: str
    locks: str

    @classmethod
    def mine(cls, locks: str) -> Self:
        """The owner that this process is, with the id of its lock directory."""
        pid = os.getpid()
        token = invocation_id() or secrets.token_hex(4)
        return cls(socket.gethostname(), boot_id(), pid, start_ticks(pid) or 0, token, locks)

    @classmethod
    @lru_cache(1024)  # a sweep of the reaper asks for every running row, and few workers run them all
    def parse(cls, text: str | None) -> Self | None:
        """Read what `str` wrote; None for anything else (a row that another program owns)."""
        if (parts := _OWNER.fullmatch(text or "")) is None:
            return None
        host, boot, pid, started, token, locks = parts.groups()
        return cls(host, boot, int(pid), int(started), token, locks)

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @property
    def supervised(self) -> bool:
        """Whether systemd runs it, whose ExecStopPost= says how it died."""
        return len(self.token) == _INVOCATION_ID_LENGTH

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; True if that can't be known (`hidepid`, another user)."""
        try:
            return self._runs()
        except PermissionError:
            return True

    def open_pidfd(self) -> int | None:
        """A pidfd of this very process (readable when it ends, see pidfd_open(2)); None if it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive:
            return descriptor
        os.close(descriptor)
        return None

    def kill(self) -> None:
        """End this very process, never another one at its pid, nor one that can't be looked at."""
        if (descriptor := self.open_pidfd()) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._runs():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)

    def _runs(self) -> bool:
        return self.boot == boot_id() and start_ticks(self.pid) == self.started
