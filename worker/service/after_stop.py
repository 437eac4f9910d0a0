"""For ExecStopPost= of a worker's unit: tells the reaper how it ended, and waits until its rows are closed.

    python3 -IS .../after_stop.py COMMAND [ARGUMENT ...]

Becomes the command where no reaper says in a few seconds that they are. systemd starts the next worker when
this ends, so it is run by its path and imports next to nothing. What it sends (`worker.liveness.signals`) is
read by `reaper.sweep.listener`.
"""

import _socket  # what `socket` stands on, which takes longer to import than all else here
import os
import sys

_ANSWER_PATIENCE_S = 3.0


def is_swept() -> bool:
    """Whether a reaper was told and has closed the rows of this run."""
    try:
        # By a descriptor, since a socket's path has 107 bytes at most, see unix(7).
        place = os.open(os.environ["DECNET_REAPER_RUNTIME_DIR"], os.O_PATH | os.O_DIRECTORY)
        run = os.environ["INVOCATION_ID"]
        how = [os.environ.get(name, "") for name in ("SERVICE_RESULT", "EXIT_STATUS")]
        channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        channel.bind("")  # a name to be answered at, of the kernel's choice; see "autobind" in unix(7)
        channel.settimeout(_ANSWER_PATIENCE_S)
        channel.connect(f"/proc/self/fd/{place}/reaper.sock")
        channel.send(" ".join(["ended", run, *how]).encode())
        return channel.recv(len(b"swept")) == b"swept"
    except (KeyError, OSError):
        return False


if __name__ == "__main__" and not is_swept():
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606
