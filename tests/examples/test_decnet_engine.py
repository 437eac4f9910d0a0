"""DECNET's own engine under the command runtime: DECNET's package from PyPI, on a real Docker engine.

As far as a plain bridge goes: the macvlan network that DECNET makes needs an interface of the machine's own.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.decnet.engine import Decnet
from tests.support.fleet import HANG_GUARD_S, Fleet, running_fleet
from tests.support.machine.docker_engine import docker, make_image, need_engine
from worker.client import LifecycleClient
from worker.liveness.owner import start_ticks

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

PROGRAM = Path(__file__).parents[2] / "examples/decnet/decnet-engine"
SERVICES = ("web", "mail")
# A `docker compose up` that takes its time.
HANGS = """#!/bin/sh
case "$*" in *" up "*) echo $$ >{called}.new; mv {called}.new {called}; exec sleep 1000 ;; esac
exec {docker} "$@"
"""


@pytest.fixture
def decnet(tmp_path: Path) -> Iterator[Decnet]:
    need_engine()
    if (
        subprocess.run(
            ["docker", "network", "inspect", "decnet_lan"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        pytest.skip("this machine has a DECNET already: a network decnet_lan")
    image = make_image()
    docker("network", "create", "--subnet", "172.31.77.0/24", "decnet_lan")
    yield Decnet(tmp_path / "decnet", image)
    left = docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=decnet").split()
    if left:
        docker("rm", "--force", *left)
    docker("network", "rm", "decnet_lan")
    docker("image", "rm", "--force", image)


@pytest.fixture
async def fleet(decnet: Decnet) -> AsyncIterator[Fleet]:
    async with running_fleet(runtime="command") as fleet:
        command = [*decnet.python, str(PROGRAM), str(decnet.directory)]
        (fleet.root / "config.toml").write_text(f"runtime_command = {json.dumps(command)}\n")
        yield fleet


def document(decky_name: str) -> dict[str, Any]:
    """The services as DECNET's composer names them."""
    share = {"network_mode": f"service:{decky_name}", "depends_on": [decky_name], "image": "decoy"}
    return {
        "services": {decky_name: {"image": "decoy"}} | {f"{decky_name}-{name}": share for name in SERVICES}
    }


def running() -> set[str]:
    label = "label=com.docker.compose.project=decnet"
    return set(docker("ps", "--filter", label, "--format", "{{.Names}}").split())


async def done(client: LifecycleClient, lifecycle_id: str) -> None:
    row = await client.wait(lifecycle_id, timeout=HANG_GUARD_S)
    assert row["status"] == "succeeded", row["error"]


async def test_compose_that_outlives_a_killed_worker_is_ended_before_the_row(
    fleet: Fleet, decnet: Decnet
) -> None:
    decnet.record("decky-01")
    called = fleet.root / "called"
    program = fleet.root / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(HANGS.format(called=called, docker=shutil.which("docker")))
    program.chmod(0o700)
    fleet.environment["PATH"] = f"{program.parent}:{fleet.environment['PATH']}"
    worker, _ = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", document("decky-01"))
        async with asyncio.timeout(HANG_GUARD_S):
            while not called.exists():
                await asyncio.sleep(0.02)
        pid = int(called.read_text())
        await worker.kill()
        row = await client.wait(lifecycle_id, timeout=HANG_GUARD_S)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation")
        assert start_ticks(pid) is None


async def test_decnets_engine_does_the_work_and_its_own_record_follows(fleet: Fleet, decnet: Decnet) -> None:
    decnet.record("decky-01", "decky-02")
    await fleet.worker()
    async with fleet.client() as client:
        both = [await client.deploy(name, document(name)) for name in ("decky-01", "decky-02")]
        for lifecycle_id in both:
            await done(client, lifecycle_id)
        whole = {"decky-01", "decky-01-web", "decky-01-mail", "decky-02", "decky-02-web", "decky-02-mail"}
        assert running() == whole
        state = json.loads(decnet.state.read_text())["config"]
        assert {decky["name"]: decky["services"] for decky in state["deckies"]} == {
            "decky-01": ["mail", "web"],
            "decky-02": ["mail", "web"],
        }

        await done(client, await client.mutate("decky-01", services=["mail"]))
        assert running() == whole - {"decky-01-web"}
        state = json.loads(decnet.state.read_text())["config"]
        assert {d["name"]: d["services"] for d in state["deckies"]}["decky-01"] == ["mail"]

        bare = await client.wait(await client.mutate("decky-01", services=["decky-01"]), timeout=HANG_GUARD_S)
        assert bare["status"] == "failed"
        assert "DECNET keeps no decky without services" in (bare["error"] or "")
        assert running() == whole - {"decky-01-web"}

        await done(client, await client.teardown("decky-02"))
        assert running() == {"decky-01", "decky-01-mail"}
        await done(client, await client.teardown("decky-01"))
        assert running() == set()
        assert not decnet.state.exists()

        unknown = await client.wait(
            await client.deploy("decky-09", document("decky-09")), timeout=HANG_GUARD_S
        )
        assert unknown["status"] == "failed"
        assert "DECNET has no record of decky-09" in (unknown["error"] or "")
