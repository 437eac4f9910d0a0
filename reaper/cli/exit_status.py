"""What the command's exit status says, and how an error is reported: in one line, on stderr."""

import click

from repo.errors import DecnetReaperError

FAILED, BAD_INPUT, UNAVAILABLE = 1, 2, 3
INTERRUPTED, PIPE_CLOSED = 130, 141
"""128 and the number of the signal, as shells say it."""

MEANINGS = {
    0: "done",
    FAILED: "the operation failed",
    BAD_INPUT: "bad usage or input; nothing was accepted",
    UNAVAILABLE: "store, queue, runtime, locks or output can't be used",
    INTERRUPTED: "interrupted with Ctrl-C",
    PIPE_CLOSED: "nobody reads the output any more",
}


def of(error: BaseException) -> int | None:
    """The exit status for a foreseeable error; None for one that nobody foresaw."""
    if isinstance(error, DecnetReaperError):
        return error.exit_status
    return UNAVAILABLE if isinstance(error, TimeoutError) else None


def report_error(error: BaseException) -> int:
    """Report a foreseeable error; returns its exit status, and raises one that nobody foresaw again."""
    status = of(error)
    if status is None:
        raise error
    return report(str(error), status)


def report(reason: str, status: int) -> int:
    """Print a reason in one line, or log it where programs read stderr; returns the status."""
    # Here, since structlog takes 0.07 s, which a command that has nothing to report need not wait for.
    from worker.logging.console import printable
    from worker.logging.setup import log_failure

    reason = printable(reason)
    if not log_failure(reason, status):
        click.echo(f"decnet-reaper: {reason}", err=True)
    return status
