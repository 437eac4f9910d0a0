"""Files that belong to the installation, whoever makes them first."""

import os
from pathlib import Path


def open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file, made with mode 0600 if it is missing; a descriptor.

    Made by root it is given to the owner of its directory, so that a command typed by root leaves nothing
    behind that the service's user can't use. (SQLite does the same for -wal and -shm.)

    Raises:
        OSError: as open(2).
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)
    return fd
