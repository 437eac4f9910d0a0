"""Signals to the reaper, which would find out later: datagrams to a socket in the runtime directory.

A worker says that it goes to work, so that the reaper watches its process from then on (pidfd_open(2)), and
ExecStopPost= of its unit says how it ended. A signal that nobody receives costs time and no truth: the next
sweep finds the same.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

SOCKET: Final = "reaper.sock"
SWEPT: Final = b"swept"
"""The answer to an `Ended`: the rows are closed."""

_AGAIN_S: Final = 1.0
_ANSWER_PATIENCE_S: Final = 3.0


class AtWork(msgspec.Struct, tag=True):
    """A worker is about to claim a row.

    Attributes:
        owner: which, as `worker.liveness.owner.Owner` writes itself.
    """

    owner: str


class Ended(msgspec.Struct, tag=True):
    """systemd saw the end of a unit's run.

    Attributes:
        run: the invocation id.
        reason: what it died of, such as "oom-kill"; empty if it ended well.
    """

    run: str
    reason: str


Signal = AtWork | Ended

_decoder: "msgspec.json.Decoder[Signal]" = msgspec.json.Decoder(Signal)


def read_signal(data: bytes) -> Signal | None:
    """What a datagram says; None if it is no signal."""
    with contextlib.suppress(msgspec.MsgspecError):
        return _decoder.decode(data)
    return None


class Signals:
    """Tells the reaper of this host, if one listens. Never raises, never waits but for the answer of `ended`.

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
        with contextlib.suppress(OSError), self._channel() as channel:
            channel.setblocking(False)
            channel.send(msgspec.json.encode(AtWork(owner)))

    def ended(self, run: str, reason: str) -> bool:
        """Say how a unit's run ended, and wait until its rows are closed.

        Returns:
            False if no reaper said in a few seconds that they are: whoever asks has to close them.
        """
        with contextlib.suppress(OSError), self._channel() as channel:
            channel.settimeout(_ANSWER_PATIENCE_S)
            channel.send(msgspec.json.encode(Ended(run, reason)))
            return channel.recv(len(SWEPT)) == SWEPT
        return False

    @contextlib.contextmanager
    def _channel(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, short(self._runtime_dir) as place:
            channel.bind("")  # a name to be answered at, of the kernel's choice; see "autobind" in unix(7)
            channel.connect(f"{place}/{SOCKET}")
            yield channel


@contextlib.contextmanager
def short(directory: Path) -> Iterator[str]:
    """Another path of a directory, while this lasts, since a socket's path has 107 bytes at most, unix(7)."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
