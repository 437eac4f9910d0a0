"""The one file that knows systemd: what the manager is told, and what it tells us.

A few lines instead of a library: `sdnotify` is unmaintained, `systemd-python` and `cysystemd` need libsystemd
to build. The protocol is sd_notify(3) and sd_watchdog_enabled(3); systemd.exec(5) documents the variables.
Without systemd everything here does nothing, so no caller asks whether it is there.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TextIO

_SEND_TIMEOUT_S = 1.0


class Notifier:
    """Tells the service manager how the daemon is. Never raises, whatever becomes of the socket.

    Args:
        environ: where $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID are read (default: this process's).
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        usec = environ.get("WATCHDOG_USEC", "")
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_interval = int(usec) / 4e6 if usec.isdecimal() and for_us else 0.0

    def ready(self, status: str) -> None:
        """Start-up or a reload is done; `status` as in `status`."""
        if self._send("READY=1", f"STATUS={_one_line(status)}"):
            self._status = status

    def status(self, text: str) -> None:
        """Say what the daemon does, for `systemctl status`. Sent when it has changed."""
        if text != self._status and self._send(f"STATUS={_one_line(text)}"):
            self._status = text

    def reloading(self) -> None:
        """Settings are being read again; `ready` says when that is done."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon has begun to stop."""
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for this many seconds, from now, for what is under way (starting, stopping)."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    async def watchdog(self, is_well: Callable[[], bool]) -> None:
        """Feed the watchdog, for ever, while all is well; returns at once where none is set for this process.

        Runs in the event loop, so that a loop that is blocked is killed. Looks four times in each period: a
        daemon that is unwell for less than half of one is not killed for it.
        """
        while self.watchdog_interval:
            if is_well():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_interval)

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return False
        # A leading @ is how a name in the abstract namespace is written, see unix(7).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that is busy for long must not block the loop: the message is given up instead.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_SEND_TIMEOUT_S)
            channel.sendto("\n".join(lines).encode(), address)
            return True
        return False


def _one_line(text: str) -> str:
    return " ".join(text.split())


def invocation_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """The id of this run of the unit, if this very process is what the unit runs; None otherwise.

    The main process and its ExecStopPost= share it, no two runs do. Children inherit the variable, a shell in
    a systemd session has it too: $SYSTEMD_EXEC_PID tells them apart.
    """
    if environ.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        return None
    return environ.get("INVOCATION_ID") or None


def death_reason(environ: Mapping[str, str] = os.environ) -> str:
    """How the unit's main process ended, for ExecStopPost=; empty if it ended well or nobody told.

    From $SERVICE_RESULT and $EXIT_STATUS: "oom-kill", "watchdog", "timeout", "signal KILL",
    "core-dump ABRT", "exit-code 3".
    """
    result = environ.get("SERVICE_RESULT", "")
    if result == "success":
        return ""
    if result in {"signal", "core-dump", "exit-code"}:
        return f"{result} {environ.get('EXIT_STATUS', '')}".rstrip()
    return result


def is_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream goes to the journal, where `<3>` at a line's beginning is its priority, sd-daemon(3).

    $JOURNAL_STREAM is inherited by children whose output goes elsewhere, hence the comparison.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
