"""A deploy on a machine with systemd, which can be kept running for as long as a test wants."""

import json
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.machine.systemd_machine import VENV, Machine

COMMAND = str(VENV / "bin/decnet-reaper")
STATE = Path("/var/lib/decnet-reaper")

_numbers = count(1)


def document(decky: str, gate: Path | None = None) -> str:
    """A document of one service; with a gate, its deploy runs until that file is there."""
    service: dict[str, Any] = {"command": ["sleep", "infinity"]}
    if gate is not None:
        test = ["CMD", "test", "-e", str(gate)]
        service["healthcheck"] = {"test": test, "interval": "100ms", "retries": 10_000}
    return json.dumps({"services": {decky: service}})


def event(host: Machine, name: str, **fields: str) -> dict[str, Any]:
    """Wait until the journal of this boot has this event with these fields."""
    wanted = {"event": name} | fields
    return dict(host.wait_for(lambda entry: wanted.items() <= entry["EVENT"].items())["EVENT"])


class Deploy:
    """A deploy of a new decky, submitted on the machine by the command.

    A gated one runs until its gate is opened: its service's healthcheck waits for a file.
    """

    def __init__(self, host: Machine, *, gated: bool) -> None:
        self.decky = f"decky-{next(_numbers):02}"
        self._host = host
        self._gate = STATE / f"gate-{self.decky}"
        self._inside("root/decky.json").write_text(document(self.decky, self._gate if gated else None))
        self.id = host.run(COMMAND, "deploy", self.decky, "--compose", "/root/decky.json").stdout.strip()

    def open_gate(self) -> None:
        self._inside(str(self._gate)).touch()

    def event(self, name: str) -> dict[str, Any]:
        """Wait until the journal has this event of this row."""
        return event(self._host, name, lifecycle_id=self.id)

    def retry_event(self, name: str) -> dict[str, Any]:
        """Wait until the journal has this event of this row's retry."""
        return event(self._host, name, retry_of=self.id)

    def row(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = json.loads(self._host.run(COMMAND, "status", self.id, "--json").stdout)
        return rows[0]

    def _inside(self, path: str) -> Path:
        return self._host.root / path.lstrip("/")
