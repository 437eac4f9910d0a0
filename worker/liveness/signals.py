"""Signals to the reaper, which would find out later: datagrams to a socket in the runtime directory.

A worker says that it goes to work, so that the reaper watches its process from then on (pidfd_open(2)), and
ExecStopPost= of its unit says how it ended (`worker/service/after_stop.py`). A signal that nobody receives
costs time and no truth: the next sweep finds the same. `reaper.sweep.listener` reads these lines:

    at-work OWNER                           as `worker.liveness.owner.Owner` writes itself
    ended RUN SERVICE_RESULT EXIT_STATUS    of an invocation id what systemd.exec(5) says of its end
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOCKET: Final = "reaper.sock"
SWEPT: Final = b"swept"
"""The answer to `ended`: the rows are closed."""

_AGAIN_S: Final = 1.0


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
