"""Files that belong to the installation, whoever makes them first."""

import os
from contextlib import suppress
from pathlib import Path


def open_private(path: Path, flags: int = os.O_RDWR, *, like: Path | None = None) -> int:
    """Open a file, made with mode 0600 if it is missing; a descriptor.

    Made by root it is given to the owner of its directory, so that a command typed by root leaves nothing
    behind that the service's user can't use. (SQLite does the same for -wal and -shm.)

    Args:
        path: the file.
        flags: as for open(2).
        like: a file whose mode and group a new one gets, since those who share the one need the other.

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
    if like is not None:
        share(fd, like)
    return fd


def share(file: int | Path, like: Path) -> None:
    """Give a file the mode and the group of another, as far as this user may."""
    with suppress(OSError):
        facts, model = os.stat(file), like.stat()  # noqa: PTH116 - of a descriptor, too
        if facts.st_gid != model.st_gid:
            os.chown(file, -1, model.st_gid)
        if facts.st_mode != model.st_mode:
            os.chmod(file, model.st_mode & 0o777)  # noqa: PTH101
