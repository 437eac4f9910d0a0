"""Who works on a row: one life of one worker process.

An owner is named by boot, pid, start time and a random part, and is never reused. Whether it lives is
asked of the kernel: the pid exists, is no zombie, and started when the name says.
"""

import contextlib
import os
import secrets
import signal
import socket
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple, Self

from worker.systemd import invocation_id

_INVOCATION_ID_LENGTH = 32


def boot_id() -> str:
    """This boot's id; units pass it in as $DECNET_REAPER_BOOT_ID, since `ProcSubset=pid` hides it."""
    return _boot_id(os.environ.get("DECNET_REAPER_BOOT_ID", ""))


@cache
def _boot_id(given: str) -> str:
    text = given or Path("/proc/sys/kernel/random/boot_id").read_text()
    return text.strip().replace("-", "")


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone (a zombie counts as gone).

    proc_pid_stat(5): the fields after the command name, which may itself hold blanks and brackets.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Owner(NamedTuple):
    """One life of one worker.

    Attributes:
        host: host name, for people.
        boot: the boot id.
        pid: process id.
        started: clock ticks since boot.
        token: random part; the unit's invocation id where systemd runs the worker.
    """

    host: str
    boot: str
    pid: int
    started: int
    token: str

    @classmethod
    def mine(cls) -> Self:
        """The owner that this process is."""
        pid = os.getpid()
        token = invocation_id() or secrets.token_hex(4)
        return cls(socket.gethostname(), boot_id(), pid, start_ticks(pid) or 0, token)

    @classmethod
    @lru_cache(1024)  # a pass of the reaper asks for every running row, and few workers run them all
    def parse(cls, text: str | None) -> Self | None:
        """Read what `str` wrote; None for anything else (a row that another program owns)."""
        parts = (text or "").split("/")
        if len(parts) != 5 or not parts[2].isdecimal() or not parts[3].isdecimal():
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]), parts[4])

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @property
    def supervised(self) -> bool:
        """Whether systemd runs it, whose ExecStopPost= says how it died."""
        return len(self.token) == _INVOCATION_ID_LENGTH

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.boot == boot_id() and start_ticks(self.pid) == self.started

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
        """End this very process, never another one that has come to its pid."""
        if (descriptor := self.open_pidfd()) is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)
