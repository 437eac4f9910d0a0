"""The directory of a store's decky locks: where it is, whose it is, and whether it still is the same one.

It follows the store: whoever opens an SQLite store, from whichever session and as whichever user, finds
`<database>-locks` beside it; a store that a server keeps has its locks in the state directory. A lock says
something only about rows that were claimed under it, so the directory has an id, which lasts for one boot,
and which each owner names. One lock directory belongs to one host.
"""

import contextlib
import fcntl
import os
import pwd
import secrets
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from repo.errors import DecnetReaperError
from repo.location import sqlite_path
from repo.settings import StoreSettings
from worker.liveness.holders import holds_of, same_file
from worker.liveness.owner import boot_id

Daemon = Literal["up", "worker", "reaper"]

_ID: Final = "id"
_HOST: Final = "host"
_NO_HOST: Final = "-"


class LocksUnusable(DecnetReaperError):
    """A directory of locks, state or sockets can't be used; says why and what to do."""

    exit_status = 3


class LocksReplaced(LocksUnusable):
    """The lock directory that was opened is not the one at this path any more."""


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
        """Of the store of these settings; one that is not there yet follows its directory (`repo.files`)."""
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
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
            os.fchmod(fd, mode)


def find_lock_directory(settings: StoreSettings) -> Path:
    """Where the locks of these settings' store are."""
    file = sqlite_path(settings.database)
    return Path(f"{file}-locks") if file else settings.state_dir.resolve() / "locks"


class LockDirectory:
    """A lock directory, open.

    Args:
        path: where it is; made if it is missing, with the access that the store has.
        access: who may use the store (default: this user alone).

    Attributes:
        path: where it is.
        id: names it for as long as this boot lasts.

    Raises:
        LocksUnusable: it can't be made, used or trusted.
    """

    def __init__(self, path: Path, access: Access | None = None) -> None:
        self.path = path
        self._access = access or Access(os.geteuid(), os.getegid(), 0o600)
        try:
            self._access.make(path)
            check_directory(path, self._access)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)
            if not os.access(path, os.W_OK | os.X_OK):
                raise LocksUnusable(f"the lock directory {path} is not writable for this user")
            self.id = self._identify()
            self._opened = self._look()
        except OSError as error:
            raise LocksUnusable(
                f"the lock directory {path} can't be used: {error.strerror}; it lies beside the store, and"
                " must be writable for all who use that"
            ) from None

    @classmethod
    def of(cls, settings: StoreSettings) -> Self:
        """That of the settings' store."""
        return cls(find_lock_directory(settings), Access.to(settings))

    def open(self, name: str) -> int:
        """Open one of its files, made if it is missing; a descriptor.

        Raises:
            OSError: as open(2).
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(name, flags, dir_fd=self._fd)
        except FileNotFoundError:
            fd = os.open(name, flags | os.O_CREAT, 0o600, dir_fd=self._fd)
        self._access.give(fd, self._access.mode)
        return fd

    def check_same(self) -> None:
        """Raises:
        LocksReplaced: the path leads to another directory, or nowhere, since it was opened.
        """
        if self._look() != self._opened:
            raise LocksReplaced(
                f"the lock directory {self.path} was replaced or removed while it was in use; never touch it:"
                " restart to use what is there now"
            )

    @contextlib.contextmanager
    def joined(self, daemon: Daemon) -> Iterator[None]:
        """While this lasts the kernel knows that such a daemon runs here; only one `up` may.

        Raises:
            LocksUnusable: there is an `up` already.
        """
        fd = self.open(_name_of(daemon))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if daemon == "up" else fcntl.LOCK_SH)
            yield
        except BlockingIOError:
            raise LocksUnusable(f"decnet-reaper is already up on this store (locks in {self.path})") from None
        finally:
            os.close(fd)

    def runs(self, daemon: Daemon) -> bool:
        """Whether such a daemon runs here."""
        fd = self.open(_name_of(daemon))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def pids(self, daemon: Daemon) -> list[int]:
        """The processes that do, as far as this user can see them."""
        fd = self.open(_name_of(daemon))
        try:
            return [hold.pid for hold in holds_of(same_file(fd))]
        finally:
            os.close(fd)

    def folder(self, name: str) -> Path:
        """A directory in it, made if it is missing.

        Raises:
            OSError: as mkdir(2).
        """
        path = self.path / name
        self._access.make(path)
        return path

    def _identify(self) -> str:
        # A copy of a directory, and one that a reboot has freed of its locks, is another one.
        place = [boot_id(), str(os.fstat(self._fd).st_ino)]
        with _alone_in(self.path):
            named = (_read(self.path / _ID) or "").split()
            if named[1:] == place:
                return named[0]
            fresh = secrets.token_hex(8)
            _write(self.path / _ID, " ".join([fresh, *place]), self._access)
            return fresh

    def _look(self) -> tuple[int, ...]:
        try:
            directory, identity = os.stat(self.path), os.stat(self.path / _ID)  # noqa: PTH116 - at each claim
        except OSError:
            return ()
        return directory.st_dev, directory.st_ino, identity.st_ino, identity.st_mtime_ns


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
        with _alone_in(directory):
            if host_of(directory) is None:
                _write(directory / _HOST, host_uuid or _NO_HOST, access)
    except OSError as error:
        raise LocksUnusable(f"{directory / _HOST} can't be written: {error.strerror}") from None
    check_host(directory, host_uuid)


def host_of(directory: Path) -> str | None:
    """The host that a directory belongs to, "-" for the master itself; None if no daemon has come yet."""
    return _read(directory / _HOST)


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


def prepare(directory: Path, access: Access) -> None:
    """Make a directory of this user's own if it is missing, and refuse one that others can change or rename.

    Raises:
        LocksUnusable: it can't be made or trusted.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_directory(directory, access)
        for parent in directory.resolve().parents:
            if parent.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
                raise LocksUnusable(f"{directory} can be renamed by everybody: chmod +t {parent}")
    except OSError as error:
        raise LocksUnusable(
            f"the directory {directory} can't be used: {error.strerror}; name one that this user may write"
        ) from None


def _host_name(noted: str) -> str:
    return "the master (no host id)" if noted == _NO_HOST else f"host {noted}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """While this lasts nobody else is here, in any process."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _name_of(daemon: Daemon) -> str:
    return f"_{daemon}.lock"  # no decky's name begins like this


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None


def _write(file: Path, text: str, access: Access) -> None:
    """Replace a file at once; whoever writes it holds the directory's lock."""
    new = file.with_name(f".{file.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        access.give(fd, access.mode)
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)
    new.replace(file)
