"""The directories that a daemon uses: who may use them, who made them, and whose host's they are."""

import contextlib
import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from repo.settings import StoreSettings
from repo.sqlite.files import make_directory
from repo.sqlite.location import sqlite_path
from worker.liveness.errors import LocksUnusable

_HOST: Final = "host"
_NO_HOST: Final = "-"


class Access(NamedTuple):
    """Who may use the store's file, and so the files beside it.

    Attributes:
        uid, gid: its user and its group.
        mode: its permissions, such as 0o600.
    """

    uid: int
    gid: int
    mode: int

    @classmethod
    def to(cls, settings: StoreSettings) -> Self:
        """Of the store of these settings; one that is not there yet follows its directory (`repo.sqlite`)."""
        path = sqlite_path(settings.database) or settings.state_dir
        with contextlib.suppress(OSError):
            while not path.exists():
                path = path.parent
            facts = path.stat()
            if path.is_file():
                return cls(facts.st_uid, facts.st_gid, facts.st_mode & 0o660)
            if facts.st_mode & 0o020:
                return cls(facts.st_uid, facts.st_gid, 0o660)
            if os.geteuid() == 0:
                return cls(facts.st_uid, facts.st_gid, 0o600)
        return cls(os.geteuid(), os.getegid(), 0o600)

    def make(self, directory: Path) -> None:
        """Make a directory for them, unless there is one; its parents are this user's own."""
        if directory.is_dir():
            return
        make_directory(directory.parent)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # Whoever may read and write the store may search here too.
            self.give(fd, self.mode | (self.mode & 0o440) >> 2)
            os.close(fd)

    def give(self, fd: int, mode: int) -> None:
        """Give a new file or directory to them, as far as this user may."""
        facts = os.fstat(fd)
        uid = self.uid if os.geteuid() == 0 else facts.st_uid
        with contextlib.suppress(PermissionError):
            if (facts.st_uid, facts.st_gid) != (uid, self.gid):
                os.fchown(fd, uid, self.gid)
            if stat.S_IMODE(facts.st_mode) != mode:
                os.fchmod(fd, mode)


def prepare(directory: Path, access: Access) -> None:
    """Make a directory of this user's own if it is missing, and refuse one that others can change or rename.

    Raises:
        LocksUnusable: it can't be made or trusted.
    """
    try:
        make_directory(directory)
        check_directory(directory, access)
        for parent in directory.resolve().parents:
            if parent.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
                raise LocksUnusable(f"{directory} can be renamed by everybody: chmod +t {parent}")
    except OSError as error:
        raise LocksUnusable(
            f"the directory {directory} can't be used: {error.strerror}; name one that this user may write"
        ) from None


def check_directory(directory: Path, access: Access) -> None:
    """Refuse a directory that somebody else made, or that others can change.

    Args:
        directory: what is to be used.
        access: who may use the store; whoever may change that may change this.

    Raises:
        LocksUnusable: who can do what, and what to do about it.
        OSError: it can't be looked at.
    """
    for facts in (directory.lstat(), directory.stat()):
        ours = access.mode & 0o020 and facts.st_gid == access.gid
        if facts.st_uid not in {0, os.geteuid(), access.uid} and not ours:
            raise LocksUnusable(
                f"{directory} belongs to {_user_name(facts.st_uid)}, who could change what is in it:"
                " remove it, or name another directory"
            )
    if facts.st_mode & (0o002 if ours else 0o022):
        raise LocksUnusable(
            f"{directory} can be changed by other users (mode {stat.S_IMODE(facts.st_mode):04o}):"
            f" chmod go-w {directory}"
        )


def check_host(directory: Path, host_uuid: str | None) -> None:
    """Refuse a directory that belongs to another host; one that no daemon has used yet belongs to any.

    Raises:
        LocksUnusable: whose it is, and what to do.
    """
    noted, ours = host_of(directory), host_uuid or _NO_HOST
    if noted in {None, ours}:
        return
    raise LocksUnusable(
        f"{directory} belongs to {_host_name(str(noted))}, and this is {_host_name(ours)}: set"
        " DECNET_REAPER_HOST_UUID as before, or use a state directory and a store of its own; to change the"
        f" host id for good, stop all daemons and delete {directory / _HOST} (doctor says how the rows of the"
        " old id end)"
    )


def belong_to(directory: Path, host_uuid: str | None, access: Access) -> None:
    """Note whose host's a directory is, the first time; later refuse another host.

    Raises:
        LocksUnusable: it belongs to another host, or can't be written.
    """
    try:
        with alone_in(directory):
            if host_of(directory) is None:
                replace_line(directory / _HOST, host_uuid or _NO_HOST, access)
    except OSError as error:
        raise LocksUnusable(f"{directory / _HOST} can't be written: {error.strerror}") from None
    check_host(directory, host_uuid)


def host_of(directory: Path) -> str | None:
    """The host that a directory belongs to, "-" for the master itself; None if no daemon has come yet."""
    return read_line(directory / _HOST)


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """While this lasts nobody else is here, in any process."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def read_line(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None


def replace_line(file: Path, text: str, access: Access) -> None:
    """Replace a file at once; whoever writes it holds the directory's lock."""
    new = file.with_name(f".{file.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        access.give(fd, access.mode)
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)
    new.replace(file)


def _host_name(noted: str) -> str:
    return "the master (no host id)" if noted == _NO_HOST else f"host {noted}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
