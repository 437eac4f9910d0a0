"""What can be wrong with locks and with the directories that a daemon uses."""

from repo.errors import DecnetReaperError


class LocksUnusable(DecnetReaperError):
    """A directory of locks, state or sockets can't be used; says why and what to do."""

    exit_status = 3


class LocksReplaced(LocksUnusable):
    """The lock directory that was opened is not the one at this path any more."""
