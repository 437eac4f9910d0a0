"""What the command's exit status says, and which error has which."""

FAILED, BAD_INPUT, UNAVAILABLE = 1, 2, 3


def of(error: Exception) -> int | None:
    """The exit status for a foreseeable error; None for one that nobody foresaw."""
    from repo.errors import StoreError, StoreUnavailable
    from repo.settings import SettingsError
    from worker.client import InvalidDocument, InvalidRequest
    from worker.locks import LocksUnusable
    from worker.queue import InvalidDSN, QueueUnavailable
    from worker.runtime import RuntimeUnavailable

    if isinstance(error, StoreUnavailable | QueueUnavailable | RuntimeUnavailable | LocksUnusable):
        return UNAVAILABLE
    if isinstance(error, StoreError | SettingsError | InvalidDocument | InvalidRequest | InvalidDSN):
        return BAD_INPUT
    return UNAVAILABLE if isinstance(error, TimeoutError) else None
