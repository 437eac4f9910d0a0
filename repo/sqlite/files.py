"""Files that belong to the installation, whoever makes them first."""

import contextlib
import grp
import os
import pwd
import shlex
from pathlib import Path

from repo.settings import SYSTEM_STATE_DIR

SERVICE_USER = "decnet-reaper"
"""The user that the units run as, and the group whose members may use its store."""
SHARED_DIRECTORY = 0o2770
"""A directory whose files belong to its group, whoever makes them."""


def open_private(path: Path, flags: int = os.O_RDWR, *, like: Path | None = None) -> int:
    """Open a file, made if it is missing; a descriptor.

    It gets mode 0600, or 0660 and the directory's group where that may write to the directory. Made by root
    it is given to the owner of its directory, so that a command typed by root leaves nothing behind that the
    service's user can't use. (SQLite does the same for -wal and -shm.)

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
    directory = path.parent.stat()
    shared = directory.st_mode & 0o020
    if os.geteuid() == 0:
        os.fchown(fd, directory.st_uid, directory.st_gid)
    elif shared and os.fstat(fd).st_gid != directory.st_gid:
        with contextlib.suppress(PermissionError):  # not a member: the next one is told so
            os.fchown(fd, -1, directory.st_gid)
    if shared:
        os.fchmod(fd, 0o660)
    if like is not None:
        share(fd, like)
    return fd


def share(file: int | Path, like: Path) -> None:
    """Give a file the mode and the group of another, as far as this user may."""
    with contextlib.suppress(OSError):
        facts, model = os.stat(file), like.stat()  # noqa: PTH116 - of a descriptor, too
        if facts.st_gid != model.st_gid:
            os.chown(file, -1, model.st_gid)
        if facts.st_mode != model.st_mode:
            os.chmod(file, model.st_mode & 0o777)  # noqa: PTH101


def make_directory(path: Path) -> None:
    """Make a directory with mode 0700, and its parents; the system's own is given to the service.

    Raises:
        OSError: as mkdir(2).
    """
    if path.is_dir():
        return
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0 and path == SYSTEM_STATE_DIR:
        give_to_service(path)


def give_to_service(path: Path) -> bool:
    """Give a file or directory to the service's user, open to its group; False if there is none."""
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return False
    os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    path.chmod(SHARED_DIRECTORY if path.is_dir() else 0o660)
    return True


def who_may_use(directory: Path) -> str:
    """For a user who may not: who may use what is in a directory, and what to do."""
    facts = directory.stat()
    ours = _name(os.geteuid())
    owner, group = _name(facts.st_uid), _group(facts.st_gid)
    private = "for a store of your own, set DECNET_REAPER_PRIVATE=1"
    if facts.st_mode & 0o020:
        join = shlex.join(["sudo", "usermod", "-aG", group, ours])
        return (
            f"user {ours} may not use it, but {owner} and the members of group {group}: {join}, then log in"
            f" again; {private}"
        )
    return f"user {ours} may not use it, but {owner} alone; {private}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
