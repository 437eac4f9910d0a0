"""Everything the store can refuse, one class and one sentence each, and the base of all errors of ours."""

from typing import ClassVar, Literal


class DecnetReaperError(Exception):
    """Base of all errors that are foreseen: the message is one line, for a person.

    Attributes:
        exit_status: of a command that ends with it: 1 the operation failed, 2 bad usage or input, 3 store,
            queue, runtime, locks or output can't be used.
    """

    exit_status: ClassVar[Literal[1, 2, 3]] = 2


class StoreError(DecnetReaperError):
    """Base of all errors that the store raises."""


class LifecycleNotFound(StoreError):
    """No row has this id."""


class LifecycleExists(StoreError):
    """A row with this id is there already."""


class LifecycleClosed(StoreError):
    """The row is terminal, and nothing leaves a terminal row."""


class TransitionRefused(StoreError):
    """The state machine has no such step."""


class DeckyBusy(StoreError):
    """Another operation is running on this decky."""


class InvalidLifecycle(StoreError):
    """A field is unknown, may not be set, or has a value that the store does not take."""


class InvalidHost(StoreError):
    """The host is not known, or is not in the state that was asked for."""


class StoreUnavailable(StoreError):
    """Base of what is wrong with the store itself and not with the call: nothing was written."""

    exit_status = 3


class StoreUnusable(StoreUnavailable):
    """The file can't be used as it is: a directory, read-only, corrupt, on a network file system."""


class StoreMissing(StoreUnavailable):
    """The store is not there, and nobody asked for it to be made."""


class SchemaNewer(StoreUnavailable):
    """A newer release has written this schema."""


class StoreBusy(StoreUnavailable):
    """Another process held the write lock for longer than we wait."""


class StoreUnreachable(StoreUnavailable):
    """The database server can't be reached, or ended the session."""


class StoreFull(StoreUnavailable):
    """No space is left for the store."""


class StoreReplaced(StoreUnavailable):
    """The file that was opened is not the one at this path any more."""
