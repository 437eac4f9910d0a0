"""What operations take of the machine, and whether its limits fit."""

import contextlib
import resource
from typing import Final

from repo.settings import SettingsError

_OF_THE_WORKER: Final = 64
"""Files that a worker itself has open: the store, the queue, its log, what looks at processes."""
_OF_AN_OPERATION: Final = 16
"""Files that one operation has open at most: its lock, pipes, descriptors of its processes."""


def ensure_descriptors(max_jobs: int) -> None:
    """Raise the limit of open files to what so many operations need.

    Raises:
        SettingsError: it can't be raised so far; says what would fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OF_THE_WORKER + _OF_AN_OPERATION * max_jobs
    if needed <= soft:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return
    fits = max(1, (soft - _OF_THE_WORKER) // _OF_AN_OPERATION)
    raise SettingsError(
        f"max_jobs {max_jobs} needs {needed} open files, and the limit is {soft}: set max_jobs to {fits}"
        " at most, or raise the limit (LimitNOFILE= of the unit, ulimit -n)"
    )
