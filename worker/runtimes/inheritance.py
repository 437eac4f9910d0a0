"""Whether a command keeps the descriptors that it inherits, on which the lock rests: tried, not guessed.

A wrapper that closes them (sudo does, and Python's subprocess) would leave the lock free while Compose works.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from worker.runtimes.subprocesses import environment, pids, run

_LOOK_EVERY_S: Final = 0.01


async def keeps_descriptors(compose: Sequence[str]) -> bool:
    """Have Compose read a document from a pipe, and look meanwhile whether who reads it has our descriptor.

    True too for a command that ends without reading the document: then nothing is known.
    """
    with tempfile.TemporaryDirectory(prefix="decnet-trial-") as directory:
        document, lock = Path(directory) / "compose.yaml", Path(directory) / "lock"
        os.mkfifo(document, 0o600)
        with lock.open("w") as trial:
            command = [*compose, "--file", str(document), "config", "--quiet"]
            child = asyncio.create_task(run(command, env=environment(), pass_fds=[trial.fileno()]))
            try:
                return await _reader_has(document, lock, child)
            finally:
                child.cancel()
                await asyncio.wait({child})


async def _reader_has(fifo: Path, lock: Path, child: "asyncio.Task[object]") -> bool:
    """Whether the process that reads a pipe has the lock open; True if the child ends before it reads."""
    writing = -1
    try:
        while not child.done():
            # Who opens a pipe for reading is held there until somebody has it open for writing, see fifo(7).
            with contextlib.suppress(OSError):
                writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK) if writing < 0 else writing
                for pid in pids():
                    if pid != os.getpid() and _has_open(pid, fifo):
                        return _has_open(pid, lock)
            await asyncio.sleep(_LOOK_EVERY_S)
        return True
    finally:
        if writing >= 0:
            os.close(writing)


def _has_open(pid: int, file: Path) -> bool:
    wanted = file.stat()
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(descriptor.stat(), wanted):
                    return True
    return False
