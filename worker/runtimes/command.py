"""The runtime that is a program of the operator's: it does the work, we keep the row's promise around it."""

import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

from worker.runtimes.base import (
    MAX_REASON,
    SHORTAGES,
    OperationFailed,
    RuntimeUnavailable,
    decky_directory,
    write_document,
)
from worker.runtimes.subprocesses import environment, run
from worker.settings import WorkerSettings

_LAST_LINES: Final = 10


class CommandRuntime:
    """Calls `PROGRAM deploy|mutate|teardown DECKY DOCUMENT-FILE SERVICE...` for each operation.

    The document holds exactly the services that are named; after a mutate that failed it is called again with
    what was there before. The program inherits the decky's lock, runs in a session of its own and dies with
    the worker. Exit status 0 is success; else its last lines are the reason. What it leaves behind is ended.

    Args:
        state_dir: the document is at `deckies/<decky>/compose.yaml` below it; a teardown finds it there too,
            if the decky was ever deployed.
        command: the program and its first arguments.
    """

    name: Final = "command"

    def __init__(self, state_dir: Path, command: Sequence[str]) -> None:
        self._state_dir = state_dir
        self._command = list(command)

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """One that runs `runtime_command`."""
        given = settings.runtime_command
        return cls(settings.state_dir, shlex.split(given) if isinstance(given, str) else given)

    async def check(self) -> str:
        """Raise RuntimeUnavailable unless the program is there and may be run."""
        if not self._command:
            raise RuntimeUnavailable("runtime is command, and DECNET_REAPER_RUNTIME_COMMAND names no program")
        if shutil.which(self._command[0]) is None:
            raise RuntimeUnavailable(
                f"DECNET_REAPER_RUNTIME_COMMAND: {self._command[0]} is not there, or may not be run"
            )
        return shlex.join(self._command)

    async def apply(
        self,
        decky_name: str,
        document: dict[str, Any],
        *,
        lock_fd: int,
        on_line: Callable[[str], None],
        operation: str = "deploy",
    ) -> None:
        """Have the program make the decky exactly this document; see `worker.runtimes.base.Runtime`."""
        file = self._file(decky_name)
        write_document(file, document)
        await self._call([operation, decky_name, str(file), *document["services"]], lock_fd, on_line)

    async def remove(
        self,
        decky_name: str,
        *,
        lock_fd: int | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Have the program take the decky down; the document goes after it."""
        file = self._file(decky_name)
        await self._call(["teardown", decky_name, str(file)], lock_fd, on_line)
        file.unlink(missing_ok=True)

    def _file(self, decky_name: str) -> Path:
        return decky_directory(self._state_dir, decky_name) / "compose.yaml"

    async def _call(
        self, arguments: list[str], lock_fd: int | None, on_line: Callable[[str], None] | None
    ) -> None:
        inherited = () if lock_fd is None else (lock_fd,)
        command = [*self._command, *arguments]
        try:
            finished = await run(command, env=environment(), pass_fds=inherited, on_line=on_line)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            raise OperationFailed(f"{self._command[0]} can't be run: {error.strerror}") from None
        if finished.status != 0:
            reason = "\n".join(finished.lines[-_LAST_LINES:])[-MAX_REASON:]
            raise OperationFailed(reason or f"{self._command[0]} {_ended(finished.status)}")


def _ended(status: int) -> str:
    if status > 0:
        return f"exited with status {status} and printed nothing"
    return f"was ended by {signal.Signals(-status).name}"
