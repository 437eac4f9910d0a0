"""The real programs that read the log or its metrics: mtail, promtool, Prometheus."""

import asyncio
import http.client
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.fleet import HANG_GUARD_S, Fleet
from tests.support.network.ports import free_port

MONITORING = Path(__file__).parents[3] / "systemd" / "monitoring"
PROGRAM = MONITORING / "decnet-reaper.mtail"
Numbers = dict[str, float]

_SAMPLE = re.compile(r"(?P<name>[a-z_]+)\{(?P<labels>.*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(?P<name>[a-z]+)="(?P<value>[^"]*)"')


def numbers(exposition: str) -> Numbers:
    """Samples in Prometheus's text format, as `name` or `name{label values}`; no buckets, no label `prog`."""
    found = {}
    for sample in _SAMPLE.finditer(exposition):
        labels = [label["value"] for label in _LABEL.finditer(sample["labels"]) if label["name"] != "prog"]
        if not sample["name"].endswith("_bucket"):
            name = sample["name"] + (f"{{{', '.join(labels)}}}" if labels else "")
            found[name] = round(float(sample["value"]), 3)
    return found


def metrics_of(log: Path) -> Numbers:
    """What mtail makes of a whole log."""
    done = subprocess.run(
        ["mtail", "-one_shot", "-one_shot_format=prometheus", f"-progs={PROGRAM}", f"-logs={log}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return numbers(done.stdout)


async def get(port: int, path: str) -> str:
    """An HTTP answer from this machine; empty while nobody answers."""

    def ask() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_GUARD_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


class Prometheus:
    """A Prometheus that scrapes mtail, which reads what a fleet logs."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def until(self, query: str) -> None:
        """Wait until a query has a result."""
        async with asyncio.timeout(HANG_GUARD_S):
            while not await self._ask(f"query?query={quote(query)}", "result"):
                await asyncio.sleep(0.1)

    async def firing(self) -> dict[str, dict[str, str]]:
        """The annotations of the alerts that fire, by name."""
        alerts = await self._ask("alerts", "alerts")
        return {a["labels"]["alertname"]: a["annotations"] for a in alerts if a["state"] == "firing"}

    async def _ask(self, what: str, part: str) -> list[dict[str, Any]]:
        answer = await get(self._port, f"/api/v1/{what}")
        found: list[dict[str, Any]] = json.loads(answer)["data"][part] if answer.startswith("{") else []
        return found


@asynccontextmanager
async def prometheus(fleet: Fleet) -> AsyncIterator[Prometheus]:
    """mtail reads the fleet's lines from its standard input, as it reads the journal's in production."""
    mtail_port, port = free_port(), free_port()
    config = fleet.root / "prometheus.yml"
    shipped = (MONITORING / "prometheus.yml").read_text()
    config.write_text(
        shipped.replace("15s", "250ms")
        .replace("127.0.0.1:3903", f"127.0.0.1:{mtail_port}")
        .replace("alerts.yml", str(MONITORING / "alerts.yml"))
    )
    mtail = await _start(
        *("mtail", f"-progs={PROGRAM}", "-logs=/dev/stdin", "-address=127.0.0.1", f"-port={mtail_port}"),
    )
    server = await _start(
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={fleet.root / 'tsdb'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    )
    feeding = asyncio.create_task(_feed(fleet, mtail))
    try:
        yield Prometheus(port)
    finally:
        feeding.cancel()
        for process in (server, mtail):
            process.kill()
            await process.communicate()


async def _feed(fleet: Fleet, mtail: asyncio.subprocess.Process) -> None:
    fed: dict[int, int] = {}
    assert mtail.stdin is not None
    while True:
        for daemon in fleet.daemons:
            new = daemon.lines[fed.get(daemon.pid, 0) :]
            fed[daemon.pid] = len(daemon.lines)
            mtail.stdin.writelines(json.dumps(line).encode() + b"\n" for line in new)
        await mtail.stdin.drain()
        await asyncio.sleep(0.05)


async def _start(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "--", *command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
