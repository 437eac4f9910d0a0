"""A Docker engine restarted under an operation: one of its own, so that no other is disturbed."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import audit
from tests.support.fleet import HANG_GUARD_S, running_fleet, wait_status
from tests.support.machine.docker_engine import docker, make_image, need_engine
from tests.support.needs import lacking, need

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


class Engine:
    """A dockerd with directories, a socket and a containerd of its own, and no network to quarrel about."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: asyncio.subprocess.Process | None = None
        self.host = f"unix://{root}/docker.sock"

    async def start(self) -> None:
        """Start it, and return when it answers."""
        with (self._root / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", f"--host={self.host}"),
                *(f"--{name}={self._root / name}" for name in ("data-root", "exec-root", "pidfile")),
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(HANG_GUARD_S):
            while (await self._docker("version")) != 0:
                assert self._process.returncode is None, (self._root / "log").read_text()
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """As an update of Docker stops it, containers and all."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG_GUARD_S):
            await self._process.wait()

    async def close(self) -> None:
        """Remove its containers, and stop it."""
        assert self._process is not None
        if self._process.returncode is None:
            if names := await asyncio.to_thread(docker, "ps", "--all", "--quiet"):
                await asyncio.to_thread(docker, "rm", "--force", *names.split())
            await self.stop()
        # What an earlier life left mounted.
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if (target := line.split()[1]).startswith(f"{self._root}/"):
                await asyncio.to_thread(subprocess.run, ["umount", "--lazy", target], check=True)
        await asyncio.to_thread(shutil.rmtree, self._root)

    async def _docker(self, *arguments: str) -> int:
        asked = await asyncio.create_subprocess_exec(
            *("docker", *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return await asked.wait()


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    need_engine()
    need("dockerd")
    if os.geteuid() != 0:
        lacking("root")
    root = Path(tempfile.mkdtemp(prefix="engine-"))
    engine = Engine(root)
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    await engine.start()
    yield engine
    await engine.close()


async def test_an_engine_restarted_in_mid_operation_fails_the_row_and_not_the_worker(engine: Engine) -> None:
    image = make_image()
    idle: dict[str, Any] = {"image": image, "command": ["sleep", "600"], "init": True, "network_mode": "none"}
    never = {"test": ["CMD", "false"], "interval": "200ms", "retries": 100_000}
    async with running_fleet(runtime="compose") as fleet:
        worker, reaper = await fleet.worker(), await fleet.reaper()
        async with fleet.client() as client:
            document = {"services": {"decky-a": idle | {"healthcheck": never}}}
            lost = await client.deploy("decky-a", document)
            await wait_status(client, lost, "running")
            async with asyncio.timeout(HANG_GUARD_S):
                while not await asyncio.to_thread(docker, "ps", "--quiet"):
                    await asyncio.sleep(0.05)
            await engine.stop()
            row = await client.wait(lost, timeout=60)
            assert row["status"] == "failed"
            # "container decky-a-decky-a-1 exited (143)", unless Compose asks only when the engine is gone.
            assert "decky-a" in (row["error"] or "") or "Cannot connect to the Docker daemon" in (
                row["error"] or ""
            )
            refused = await client.wait(
                await client.deploy("decky-b", document | {"services": {"decky-b": idle}}), 60
            )
            assert "Cannot connect to the Docker daemon" in (refused["error"] or "")
            await engine.start()
            for name in ("decky-a", "decky-b"):
                again = await client.deploy(name, {"services": {name: idle}})
                row = await client.wait(again, timeout=60)
                assert (row["status"], row["error"]) == ("succeeded", None)
            for daemon in (worker, reaper):
                assert daemon.process.returncode is None
                assert [line for line in daemon.lines if "exception" in line] == []
            await audit(fleet, client)
