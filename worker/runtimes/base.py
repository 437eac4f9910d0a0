"""What brings a decky up: the interface of every runtime, and what they share."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

if TYPE_CHECKING:
    from worker.settings import WorkerSettings

from repo.base import DECKY_NAME
from repo.errors import DecnetReaperError

SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))
"""What a machine answers that has no descriptor, no memory or no process left for us, for now."""

MAX_REASON = 2000
"""Characters of a failure's reason that are kept, from its end: the last lines say why."""


_PLAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SLUG = 40
_DIGITS = 16


class OperationFailed(DecnetReaperError):
    """The runtime itself reported a failure; the message is the row's `error`."""

    exit_status = 1

    def __init__(self, reason: str) -> None:
        super().__init__(reason[-MAX_REASON:])


class OperationTimedOut(OperationFailed):
    """The operation was ended because it took longer than it may."""


class RuntimeUnavailable(DecnetReaperError):
    """The runtime can't be used on this machine; one line says what is missing and what to do."""

    exit_status = 3


class RuntimeAway(RuntimeUnavailable):
    """The runtime is installed, and what it needs, such as Docker's engine, doesn't answer now."""


class Runtime(Protocol):
    """Converges deckies. An operation repeated after a crash ends in the same state."""

    @property
    def name(self) -> str:
        """As in the registry."""

    @classmethod
    def of(cls, settings: "WorkerSettings") -> Self:
        """The runtime that these settings describe."""

    async def check(self) -> str:
        """What it will use, in one line for a doctor. Raises RuntimeUnavailable where that can't be used."""

    async def apply(
        self,
        decky_name: str,
        document: dict[str, Any],
        *,
        lock_fd: int,
        on_line: Callable[[str], None],
        operation: str = "deploy",
    ) -> None:
        """Make the decky exactly this document, which holds this decky's services only.

        Services that are not in it are removed, unchanged ones are left untouched. Returns once every service
        is up. `lock_fd` is the decky's locked file; children that could still change the decky inherit it.
        `on_line` takes a line for each thing that it does, as it does it; it returns at once and hides
        secrets. `operation` is what it is done for. Raises OperationFailed; OSError with one of SHORTAGES
        where it is to be tried again. When cancelled, ends and awaits its children before it lets go.
        """

    async def remove(
        self,
        decky_name: str,
        *,
        lock_fd: int | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Take the decky down; does nothing where there is none. `lock_fd` and `on_line` as for `apply`."""


def project_name(decky_name: str) -> str:
    """What a decky's Compose project and directory are called: a name for it alone, which Compose takes.

    Its own name where that will do; else what is left of it, `_`, and a part of its SHA-256. Only names of
    the second kind have a `_`, so that no two deckies share one.
    """
    if _PLAIN.fullmatch(decky_name):
        return decky_name
    slug = re.sub(r"[^a-z0-9]+", "-", decky_name.lower())[:_SLUG].strip("-")
    return f"{slug}_{hashlib.sha256(decky_name.encode()).hexdigest()[:_DIGITS]}"


def decky_directory(state_dir: Path, decky_name: str) -> Path:
    """The decky's own directory below the state directory, made if missing, for this user only.

    Raises OperationFailed for a name that can't be a decky's, and for a state directory that can't be used;
    OSError in a shortage.
    """
    if not DECKY_NAME.fullmatch(decky_name):
        raise OperationFailed(f"{decky_name[:80]!r} can't be a decky's name")
    directory = state_dir / "deckies" / project_name(decky_name)
    try:
        for path in (state_dir, directory.parent, directory):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        raise OperationFailed(f"the state directory {state_dir} can't be used: {error.strerror}") from None
    return directory


def write_document(file: Path, document: dict[str, Any]) -> None:
    """Replace a decky's document at once and for good, for this user only.

    Raises OperationFailed; OSError in a shortage.
    """
    new = file.with_suffix(".new")
    try:
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as stream:
            json.dump(document, stream, indent=1, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        raise OperationFailed(f"the document can't be written to {file}: {error.strerror}") from None
