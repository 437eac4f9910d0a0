"""A stand-in for Compose that notes who touches which decky when, with the kernel as its witness.

Each decky has a witness file of the storm's own; who works on it holds that file with flock(2) to his end,
however he ends, and so do the processes that he leaves behind. Who finds it held notes an overlap. Nothing
here knows of the product's locks. Called as `engine.py NOTES-DIRECTORY ... up ... --file DOCUMENT`.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """One call of Compose."""
    arguments = sys.argv[2:]
    if "version" in arguments:
        print("2.40.3")  # noqa: T201
    if "up" not in arguments:
        return 0
    document = json.loads(Path(arguments[arguments.index("--file") + 1]).read_text())
    wish = next(iter(document["services"].values()))["environment"]
    notes = Path(sys.argv[1])
    witness = os.open(notes / f"{wish['DECKY']}.witness", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _note(notes, "overlap", wish)
    _note(notes, "begin", wish)
    if wish["HOW"] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if wish["HOW"] == "leaves" and os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _note(notes, "begin", wish)
        time.sleep(600)
        os._exit(0)
    time.sleep(float(wish["SECONDS"]))
    _note(notes, "end", wish)
    return 1 if wish["HOW"] == "fails" else 0


def _note(notes: Path, what: str, wish: dict[str, Any]) -> None:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    line = {"what": what, "decky": wish["DECKY"], "wish": wish["WISH"]}
    line |= {"pid": os.getpid(), "started": started}
    fd = os.open(notes / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (json.dumps(line | {"at": time.time()}) + "\n").encode())
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
