"""The production runtime: Docker Compose version 2, one project per decky."""

import asyncio
import contextlib
import functools
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from worker.runtimes.base import (
    MAX_REASON,
    OperationFailed,
    RuntimeAway,
    RuntimeUnavailable,
    decky_directory,
    project_name,
    write_document,
)
from worker.runtimes.inheritance import keeps_descriptors
from worker.runtimes.subprocesses import Finished, environment, run
from worker.settings import WorkerSettings

_CHECK_PATIENCE: Final = 20.0
_VERSION: Final = re.compile(r"v?(\d+)\.\d+")
_PROJECT: Final = "com.docker.compose.project"
_SERVICE: Final = "com.docker.compose.service"
_NO_NETWORK: Final = re.compile(r"network (\S+) declared as external, but could not be found")
_EXIT_STATUS: Final = re.compile(r"\((\d+)\)")
_OUTPUT_LINES: Final = 10
_LOG_LINES: Final = 5
_MAX_BLAMED: Final = 4
_LOOKS_AGAIN: Final = 8
_LOOK_EVERY: Final = 0.25


class _Container(NamedTuple):
    service: str
    state: str
    status: str

    @property
    def trouble(self) -> str | None:
        """What is wrong with it, in words."""
        if self.state in ("exited", "dead", "restarting"):
            code = _EXIT_STATUS.search(self.status)
            ended = f"exited with status {code[1]}" if code else "exited"
            return f"{ended} and is restarted in vain" if self.state == "restarting" else ended
        return "unhealthy" if "(unhealthy)" in self.status else None


class ComposeRuntime:
    """Brings deckies up with `docker compose up --wait`.

    Args:
        state_dir: the document of a decky is kept at `deckies/<decky_name>/compose.yaml` below it.
        command: the argument list of Compose; by default `docker compose`, else `docker-compose`.

    A service without a healthcheck counts as up once it runs, as in `docker compose up --wait`; one that ends
    seconds later is not noticed.
    """

    name: Final = "compose"

    def __init__(self, state_dir: Path, command: Sequence[str] | None = None) -> None:
        self._state_dir = state_dir
        self._wanted = list(command) if command else None
        self._found: _Compose | None = None

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """One that keeps its documents below `state_dir`, and runs `compose_command`."""
        return cls(settings.state_dir, settings.compose_command.split())

    async def check(self) -> str:
        """Raise RuntimeUnavailable where Compose 2 isn't installed, RuntimeAway where no engine answers."""
        command, version = await self._compose()
        try:
            async with asyncio.timeout(_CHECK_PATIENCE):
                answer = await run([*command, "ls", "--quiet"], env=environment())
        except TimeoutError:
            raise RuntimeAway(f"the Docker engine didn't answer in {_CHECK_PATIENCE:g} s") from None
        if answer.status != 0:
            reason = answer.lines[-1] if answer.lines else f"exit status {answer.status}"
            raise RuntimeAway(f"the Docker engine can't be reached, start it or join its group: {reason}")
        if not await keeps_descriptors(command):
            raise RuntimeUnavailable(
                f"{' '.join(command)} closes the descriptors that it inherits, so that a decky's lock would"
                " be free while it works: have it keep them, or set DECNET_REAPER_COMPOSE_COMMAND to Compose"
                " itself"
            )
        return f"{' '.join(command)} {version}, whose engine answers"

    async def apply(
        self,
        decky_name: str,
        document: dict[str, Any],
        *,
        lock_fd: int,
        on_line: Callable[[str], None],
        operation: str = "deploy",
    ) -> None:
        """Make the decky's project exactly this document; see `worker.runtimes.base.Runtime`."""
        file = decky_directory(self._state_dir, decky_name) / "compose.yaml"
        write_document(file, document)
        compose = [*await self._project(decky_name), "--file", str(file)]

        # Orphans are this decky's own former services: the project is the decky.
        up = [*compose, "up", "--detach", "--wait", "--remove-orphans", "--quiet-pull"]
        if any("build" in service for service in document["services"].values()):
            up.append("--build")  # or a changed context would be ignored, and the row say succeeded
        inherit = functools.partial(run, env=environment(), pass_fds=(lock_fd,))
        finished = await inherit(up, on_line=on_line)
        listing = _listing(compose, decky_name)
        # Asked after a success as well: `--wait` takes a container that is restarted in vain for running.
        blamed = _in_trouble(await inherit(listing))
        if finished.status == 0 and not blamed:
            return
        # What is restarted in vain is unhealthy to `--wait`, and looks well for a moment after each start.
        looks = _LOOKS_AGAIN if "is unhealthy" in _last_lines(finished) else 0
        while not blamed and looks:
            await asyncio.sleep(_LOOK_EVERY)
            blamed = _in_trouble(await inherit(listing))
            looks -= 1
        reasons = [_last_lines(finished), *_missing_networks(finished)] if finished.status != 0 else []
        for container in blamed[:_MAX_BLAMED]:
            logs = ["logs", "--no-color", "--no-log-prefix", "--tail", str(_LOG_LINES), container.service]
            last = await inherit([*compose, *logs])
            share = MAX_REASON // 2 // _MAX_BLAMED
            reasons.append(
                f"{container.service} {container.trouble}: {_tail(last.lines, share) or 'no output'}"
            )
        raise OperationFailed("\n".join(reasons))

    async def remove(
        self,
        decky_name: str,
        *,
        lock_fd: int | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Take the decky's project down, its network too; volumes stay."""
        directory = decky_directory(self._state_dir, decky_name)
        # Found by its labels, in a directory without a document, so that one which is no good can't hinder.
        down = [*await self._project(decky_name), "down", "--remove-orphans"]
        inherited = () if lock_fd is None else (lock_fd,)
        finished = await run(down, env=environment(), cwd=Path("/"), pass_fds=inherited, on_line=on_line)
        if finished.status != 0:
            raise OperationFailed(_last_lines(finished))
        (directory / "compose.yaml").unlink(missing_ok=True)

    async def _project(self, decky_name: str) -> list[str]:
        try:
            command, _ = await self._compose()
        except RuntimeUnavailable as error:
            raise OperationFailed(str(error)) from None
        return [
            *command,
            "--ansi",
            "never",
            "--progress",
            "plain",
            "--project-name",
            project_name(decky_name),
        ]

    async def _compose(self) -> "_Compose":
        """Compose, once one of version 2 has answered."""
        if self._found is None:
            self._found = await _find(self._wanted)
        return self._found


class _Compose(NamedTuple):
    """A Compose that was found: its argument list, and what version it says to be."""

    command: list[str]
    version: str


async def _find(wanted: list[str] | None) -> _Compose:
    """The first command that answers as Compose 2. Raises RuntimeUnavailable."""
    old = None
    for command in [wanted] if wanted else [["docker", "compose"], ["docker-compose"]]:
        version = await _version(command)
        if version is not None and int(version.partition(".")[0]) >= 2:
            return _Compose(command, version)
        old = old or (version and f"{' '.join(command)} is version {version}, which is too old")
    missing = old or (
        f"{' '.join(wanted)} doesn't answer as Compose" if wanted else "Docker Compose is not installed"
    )
    raise RuntimeUnavailable(f"{missing}; install Docker with Compose 2, or use the process runtime")


async def _version(command: list[str]) -> str | None:
    """What the command says to be, such as `2.40.3`; None where it isn't there, or isn't Compose."""
    if shutil.which(command[0]) is None:
        return None
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CHECK_PATIENCE):
            answer = await run([*command, "version", "--short"], env=environment())
        if answer.status == 0 and answer.lines and _VERSION.match(answer.lines[-1]):
            return answer.lines[-1].removeprefix("v")
    return None


def _listing(compose: Sequence[str], decky_name: str) -> list[str]:
    """The command that lists a project's containers: service, state, status.

    `docker ps` says the same as `docker compose ps`, in a quarter of the time.
    """
    command = compose[: compose.index("--ansi")]  # a decky may be called compose, too
    if "compose" not in command:
        return [*compose, "ps", "--all", "--format", "{{.Service}},{{.State}},{{.Status}}"]
    docker = command[: command.index("compose")]
    fields = f'{{{{.Label "{_SERVICE}"}}}},{{{{.State}}}},{{{{.Status}}}}'
    return [
        *docker,
        "ps",
        "--all",
        "--filter",
        f"label={_PROJECT}={project_name(decky_name)}",
        "--format",
        fields,
    ]


def _in_trouble(listing: Finished) -> list[_Container]:
    """Those containers of a `_listing` that are in trouble."""
    rows = [line.split(",", 2) for line in listing.lines if listing.status == 0]
    return [container for row in rows if len(row) == 3 and (container := _Container(*row)).trouble]


def _last_lines(finished: Finished) -> str:
    """The last lines that Compose printed, without those that only tell of progress."""
    telling = [line for line in finished.lines if not line.startswith(" ")] or finished.lines
    return (
        _tail(telling[-_OUTPUT_LINES:], MAX_REASON // 3)
        or f"docker compose exited with status {finished.status}"
    )


def _missing_networks(finished: Finished) -> list[str]:
    """What to do about the networks that the document takes as given and the engine doesn't have."""
    found = [missing[1] for line in finished.lines if (missing := _NO_NETWORK.search(line))]
    return [
        f"the network {name} isn't there, and the document takes it as external: `decnet deploy` makes"
        f" DECNET's own, `docker network create {name}` a plain bridge"
        for name in dict.fromkeys(found)
    ]


def _tail(lines: list[str], characters: int) -> str:
    return "\n".join(lines)[-characters:]
