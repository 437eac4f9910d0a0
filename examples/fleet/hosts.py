"""A machine of the fleet: one configuration, from which all its commands and daemons run."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Any

from examples.fleet.network import Namespace
from reaper.settings import ReaperSettings, load

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class FleetError(RuntimeError):
    """Something that the story needs did not happen; what, for people."""


class Machine:
    """A machine with a configuration.

    Args:
        directory: where its own is made.
        name: of the machine.
        config: its config.toml, without the directories.
        namespace: where its processes run; None for here.
    """

    def __init__(self, directory: Path, name: str, config: str, namespace: Namespace | None = None) -> None:
        self.name = name
        self._directory = directory / name
        self._directory.mkdir()
        self._namespace = namespace
        self._daemons: list[asyncio.Task[int]] = []
        settings = {
            "state_dir": str(self._directory / "state"),
            "runtime_dir": str(self._directory / "run"),
            "runtime": "process",
            "log_format": "json",
        }
        lines = [config, *(f"{key} = {json.dumps(value)}" for key, value in settings.items()), ""]
        self._config = self._directory / "config.toml"
        self._config.touch(0o600)
        self._config.write_text("\n".join(lines))

    @property
    def settings(self) -> ReaperSettings:
        """What its daemons read."""
        return load(ReaperSettings, {"DECNET_REAPER_CONFIG": str(self._config)})

    async def run(self, *arguments: str) -> str:
        """What a command of decnet-reaper prints there.

        Raises:
            FleetError: it failed.
        """
        process = await asyncio.create_subprocess_exec(
            *self._command(*arguments), env=self._environment(), stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
        if process.returncode:
            raise FleetError(f"decnet-reaper {' '.join(arguments)}: {err.decode().strip()}")
        return out.decode()

    async def start(self, daemon: str) -> None:
        """Start a daemon, and return when it is ready.

        Raises:
            FleetError: it ended instead.
        """
        with self._log(daemon).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command(daemon), env=self._environment(), stdin=DEVNULL, stdout=log, stderr=log
            )
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self.line(daemon, f"{daemon}.started"))
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ready.cancel()
            raise FleetError(f"{daemon} of {self.name}: {self._log(daemon).read_text()[-500:]}")
        await ready
        self._daemons.append(ended)

    def logged(self, daemon: str, event: str) -> list[dict[str, Any]]:
        """The lines of an event in a daemon's log."""
        whole = self._log(daemon).read_text().rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    async def line(self, daemon: str, event: str) -> dict[str, Any]:
        """The first line of an event in a daemon's log, once it is there.

        Raises:
            FleetError: it does not come, for `PATIENCE_S`.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (found := self.logged(daemon, event)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise FleetError(f"{daemon} of {self.name} logged no {event} in {PATIENCE_S:g} s") from None
        return found[0]

    def _log(self, daemon: str) -> Path:
        return self._directory / f"{daemon}.log"

    def _command(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "reaper", *arguments]
        return self._namespace.command(*command) if self._namespace else command

    def _environment(self) -> dict[str, str]:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("DECNET_REAPER_")}
        return kept | {"DECNET_REAPER_CONFIG": str(self._config), "PYTHONPATH": str(ROOT)}
