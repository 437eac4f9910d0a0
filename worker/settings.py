"""What the worker and the master's client need to know."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from repo.settings import Seconds, SettingsError, StoreSettings, is_system_wide, load
from worker.runtimes.registry import AUTO, RUNTIMES

__all__ = ["Seconds", "WorkerSettings", "load"]

Positive = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Host = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]


def default_runtime_dir() -> Path:
    """/run/decnet-reaper where `is_system_wide` says so, else below $XDG_RUNTIME_DIR, else /tmp."""
    if is_system_wide(system := Path("/run/decnet-reaper")):
        return system
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "decnet-reaper" if base else Path(f"/tmp/decnet-reaper-{os.geteuid()}")  # noqa: S108


class WorkerSettings(StoreSettings, frozen=True, kw_only=True):
    """Settings of a worker, and of whoever submits to one.

    Attributes:
        runtime_dir: what a reboot may empty: the sockets of the embedded queue and of the reaper.
        redis: DSN of the queue: redis://, rediss://, unix:// or redis+sentinel://.
        host_uuid: the host that this installation serves; none for the master's own deckies.
        runtime: what brings deckies up: "compose", "command" (see `runtime_command`), "process" (the commands
            of a document as local processes, unconfined), or "auto": Compose; in `up` and `demo` alone local
            processes where no Compose 2 is installed.
        runtime_command: the program of the command runtime, as words or as a list of them.
        document_policy: what a document may ask for: "any", or "decnet": what DECNET's own documents need.
            The worker's counts; the client's refuses before there is a row.
        compose_command: the Compose command, as words; empty to look for one.
        max_jobs: operations that one worker runs at a time.
        max_attempts: how often an interrupted operation is tried in all.
        operation_timeout: how long one operation may take, in seconds.
        stop_grace: how long a worker that is told to stop lets its operations finish, in seconds.
        log_format: "json", "console", or "auto": console on a terminal.
        log_level: the least level that is logged.
    """

    runtime_dir: Path = msgspec.field(default_factory=default_runtime_dir)
    redis: str = ""
    host_uuid: Host | None = None
    runtime: str = AUTO
    runtime_command: str | list[str] = ""
    document_policy: Literal["any", "decnet"] = "any"
    compose_command: str = ""
    max_jobs: Positive = 10
    max_attempts: Positive = 2
    operation_timeout: Seconds = Seconds(600)
    stop_grace: Seconds = Seconds(30)
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __post_init__(self) -> None:
        StoreSettings.__post_init__(self)
        if self.runtime not in (choices := [AUTO, *RUNTIMES]):
            raise SettingsError(
                f"the setting runtime can't be {self.runtime!r}: expected one of {', '.join(choices)}"
            )
        if isinstance(self.runtime_command, str):
            try:
                shlex.split(self.runtime_command)
            except ValueError as error:
                raise SettingsError(
                    f"runtime_command can't be {self.runtime_command!r}: {error}; mend its quotes"
                ) from None
        if not self.redis:
            msgspec.structs.force_setattr(self, "redis", f"unix://{self.runtime_dir}/queue.sock")
