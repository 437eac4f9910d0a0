"""What the command's exit status says, which error has which, and how it is told: in one line, on stderr."""

import click

FAILED, BAD_INPUT, UNAVAILABLE = 1, 2, 3
INTERRUPTED, PIPE_CLOSED = 130, 141
"""128 and the number of the signal, as shells say it."""

MEANINGS = {
    0: "done",
    FAILED: "the operation failed",
    BAD_INPUT: "bad usage or input; nothing was accepted",
    UNAVAILABLE: "store, queue, runtime or locks can't be used",
    INTERRUPTED: "interrupted with Ctrl-C",
    PIPE_CLOSED: "nobody reads the output any more",
}


def of(error: BaseException) -> int | None:
    """The exit status for a foreseeable error; None for one that nobody foresaw."""
    from reaper.cli.admin.installation import InstallError
    from repo.errors import StoreError, StoreUnavailable
    from repo.settings import SettingsError
    from worker.client import InvalidDocument, InvalidRequest
    from worker.liveness.locks import LocksUnusable
    from worker.queue import InvalidDSN, QueueUnavailable
    from worker.runtimes.base import RuntimeUnavailable

    if isinstance(error, StoreUnavailable | QueueUnavailable | RuntimeUnavailable | LocksUnusable):
        return UNAVAILABLE
    if isinstance(
        error, InstallError | StoreError | SettingsError | InvalidDocument | InvalidRequest | InvalidDSN
    ):
        return BAD_INPUT
    return UNAVAILABLE if isinstance(error, TimeoutError) else None


def told(error: BaseException) -> int:
    """Tell a foreseeable error; returns its exit status, and raises one that nobody foresaw again."""
    status = of(error)
    if status is None:
        raise error
    return tell(str(error), status)


def tell(reason: str, status: int) -> int:
    """Print a reason in one line, or log it where programs read stderr; returns the status."""
    from worker.logging.setup import told_as_line

    reason = " ".join(reason.split())
    if not told_as_line(reason, status):
        click.echo(f"decnet-reaper: {reason}", err=True)
    return status
