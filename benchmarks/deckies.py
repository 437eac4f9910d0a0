"""A fleet of 30 deckies by Docker Compose, four at a time: `python -m benchmarks.deckies [--quick]`.

Beside us: `xargs -P4 docker compose up -d --wait` on the same documents; and the same followed by the look at
the containers that we take after each `up`, since `--wait` is content with one that restarts in vain. Each
decky is a base and a service that shares its network; all are on one network, since Docker has address space
for about 30 by default. Needs a Docker engine with Compose 2.
"""

import asyncio
import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import Result, command
from tests.support.fleet import running_fleet
from tests.support.machine.docker_engine import docker, make_image

AT_ONCE = 4
Documents = dict[str, dict[str, Any]]


def documents(count: int, image: str, network: str) -> Documents:
    """Compose documents by decky name."""
    idle = {"image": image, "command": ["sleep", "infinity"], "stop_grace_period": "0s"}
    shared = {"default": {"name": network, "external": True}}
    made: Documents = {}
    for number in range(count):
        name = f"bench-{uuid.uuid4().hex[:6]}-{number:02}"
        ssh = {**idle, "network_mode": f"service:{name}", "depends_on": [name]}
        made[name] = {"services": {name: {**idle, "hostname": name}, f"{name}-ssh": ssh}, "networks": shared}
    return made


@contextlib.asynccontextmanager
async def removed(fleet: Documents) -> AsyncIterator[None]:
    """Remove the containers afterwards."""
    try:
        yield
    finally:
        labels = [f"com.docker.compose.project={name}" for name in fleet]
        for label in labels:
            ids = await asyncio.to_thread(docker, "ps", "--all", "--quiet", "--filter", f"label={label}")
            if ids:
                await asyncio.to_thread(docker, "rm", "--force", *ids.split())


async def ours(fleet: Documents) -> float:
    """Seconds until all are up, by one worker."""
    async with removed(fleet), running_fleet(runtime="compose", max_jobs=str(AT_ONCE)) as installation:
        await installation.worker()
        async with installation.client() as client:
            began = time.monotonic()
            ids = [await client.deploy(name, document) for name, document in fleet.items()]
            # One after the other: thirty who ask four times a second would be work on the same two cores.
            rows = [await client.wait(each, timeout=600) for each in ids]
            took = time.monotonic() - began
    if failed := [row["error"] for row in rows if row["status"] != "succeeded"]:
        raise SystemExit(f"{len(failed)} deploys failed: {failed[0]}")
    return took


async def xargs(fleet: Documents, *, look: bool = False) -> float:
    """Seconds until all are up, by xargs; `look`: and each has been looked at."""
    with TemporaryDirectory() as directory:
        for name, document in fleet.items():
            (Path(directory) / f"{name}.yaml").write_text(json.dumps(document))
        up = ["docker", "compose", "-p", "{}", "-f", f"{directory}/{{}}.yaml", "up", "-d", "--wait"]
        if look:
            listing = "docker ps --all --filter label=com.docker.compose.project={}"
            up = ["sh", "-c", f"{' '.join(up)} && {listing}"]
        async with removed(fleet):
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *("xargs", f"-P{AT_ONCE}", "-I{}", *up),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            await process.communicate("\n".join(fleet).encode())
            took = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"xargs ended with status {process.returncode}")
    return took


async def measure(quick: bool) -> list[Result]:
    """Both, in turns."""
    rounds, count = (1, 8) if quick else (3, 30)
    network = f"bench-{uuid.uuid4().hex[:8]}"
    image = make_image()
    docker("network", "create", network)
    took: dict[str, list[float]] = {"ours": [], "xargs": [], "look": []}
    try:
        for _ in range(rounds):
            took["xargs"].append(await xargs(documents(count, image, network)))
            took["ours"].append(await ours(documents(count, image, network)))
            took["look"].append(await xargs(documents(count, image, network), look=True))
    finally:
        docker("network", "rm", network)
        docker("rmi", image)
    what = f"{count} deckies up, {AT_ONCE} at a time"
    plain, looked = f"xargs -P{AT_ONCE}", f"xargs -P{AT_ONCE}, with the look"
    return [
        Result(what, median(took["ours"]), plain, median(took["xargs"]), "s", 1 / 1.05),
        Result(what, median(took["ours"]), looked, median(took["look"]), "s", None),
    ]


if __name__ == "__main__":
    command(__doc__, measure)
