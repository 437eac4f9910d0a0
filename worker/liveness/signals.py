"""Signals to the reaper, which would find out later: datagrams to a socket in the runtime directory.

A worker says that it goes to work, so that the reaper watches its process from then on (pidfd_open(2)), and
ExecStopPost= of its unit says how it ended (`worker/service/after_stop.py`). A signal that nobody receives
costs time and no truth: the next sweep finds the same. Each is a line of words.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from worker.service.systemd import death_reason

SOCKET: Final = "reaper.sock"
SWEPT: Final = b"swept"
"""The answer to an `Ended`: the rows are closed."""

_AGAIN_S: Final = 1.0
_TOLD: Final = ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")


class AtWork(NamedTuple):
    """A worker is about to claim a row.

    Attributes:
        owner: which, as `worker.liveness.owner.Owner` writes itself.
    """

    owner: str


class Ended(NamedTuple):
    """systemd saw the end of a unit's run.

    Attributes:
        run: the invocation id.
        reason: what it died of, such as "oom-kill"; empty if it ended well.
    """

    run: str
    reason: str


def read_signal(data: bytes) -> AtWork | Ended | None:
    """What a datagram says; None if it is no signal."""
    match data.decode(errors="replace").split(" "):
        case ["at-work", owner]:
            return AtWork(owner)
        case ["ended", run, result, code, status]:
            return Ended(run, death_reason(dict(zip(_TOLD, (result, code, status), strict=True))))
    return None


class Signals:
    """Tells the reaper of this host, if one listens. Never raises, never waits.

    Args:
        runtime_dir: where the reaper's socket is.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._runtime_dir = runtime_dir
        self._sent_at = -_AGAIN_S

    def at_work(self, owner: str) -> None:
        """Say who is about to claim a row; once a second is enough, for a reaper that was started since."""
        if time.monotonic() - self._sent_at < _AGAIN_S:
            return
        self._sent_at = time.monotonic()
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
            short(self._runtime_dir) as place,
        ):
            channel.setblocking(False)
            channel.sendto(f"at-work {owner}".encode(), f"{place}/{SOCKET}")


@contextlib.contextmanager
def short(directory: Path) -> Iterator[str]:
    """Another path of a directory, while this lasts, since a socket's path has 107 bytes at most, unix(7)."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
