"""A real Docker engine: a tiny image, and one decky as Compose sees it."""

import asyncio
import io
import json
import shutil
import subprocess
import tarfile
import uuid
from pathlib import Path
from typing import Any

from tests.support.fleet import HANG_GUARD_S
from tests.support.needs import lacking, need

_APPLETS = ("cat", "echo", "false", "grep", "httpd", "nc", "sh", "sleep", "test", "touch", "true", "wget")


def need_engine() -> None:
    """Skip the test where there is no engine with Compose 2."""
    need("docker")
    asked = subprocess.run(["docker", "compose", "ls"], capture_output=True, text=True, check=False)
    if asked.returncode:
        lacking(f"a Docker engine with Compose 2 ({' '.join(asked.stderr.split())})")


def make_image() -> str:
    """Import an image that holds a static busybox (Debian: busybox-static) and one page to serve."""
    name = f"decnet-reaper-test:{uuid.uuid4().hex[:12]}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add(tar, "bin/busybox", Path(shutil.which("busybox") or "/bin/busybox").read_bytes(), 0o755)
        _add(tar, "srv/index.html", b"a decoy\n", 0o644)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    command = ["docker", "import", "--change", "ENV PATH=/bin", "-", name]
    subprocess.run(command, input=archive.getvalue(), capture_output=True, check=True)
    return name


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def docker(*arguments: str) -> str:
    """What a docker command prints."""
    finished = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return finished.stdout.strip()


class ComposeDecky:
    """A decky's name that nobody else uses, and what the engine says of it."""

    def __init__(self, image: str) -> None:
        self.name = f"decky-{uuid.uuid4().hex[:10]}"
        self._image = image

    def document(self, *services: str, **changes: Any) -> dict[str, Any]:
        """A base, and services that share its network: `http` on port 80, `ssh` on port 22.

        Any other service idles. `changes` are keys of the last service.
        """
        document: dict[str, Any] = {"services": {self.name: {**self.idle(), "hostname": "web"}}}
        for service in services:
            document["services"][f"{self.name}-{service}"] = self._service(service)
        last = next(reversed(document["services"].values()))
        last.update(changes)
        return document

    def idle(self) -> dict[str, Any]:
        """A service that does nothing."""
        return {"image": self._image, "command": ["sleep", "infinity"], "stop_grace_period": "0s"}

    def _service(self, service: str) -> dict[str, Any]:
        commands = {
            "http": ["httpd", "-f", "-p", "80", "-h", "/srv"],
            "ssh": ["nc", "-ll", "-p", "22", "-e", "echo", "SSH-2.0-decoy"],
        }
        tests = {
            "http": "wget -q -O /dev/null http://127.0.0.1/index.html",
            "ssh": "nc 127.0.0.1 22 </dev/null | grep -q SSH",
        }
        share = {"network_mode": f"service:{self.name}", "depends_on": [self.name]}
        if service not in commands:
            return {**self.idle(), **share}
        check = {"test": ["CMD-SHELL", tests[service]], "interval": "200ms", "retries": 100}
        return {**self.idle(), **share, "command": commands[service], "healthcheck": check}

    def containers(self) -> dict[str, str]:
        """Ids of its running containers, by service."""
        label = "com.docker.compose"
        listed = docker(
            *("ps", "--no-trunc", "--filter", f"label={label}.project={self.name}"),
            *("--format", f'{{{{.Label "{label}.service"}}}} {{{{.ID}}}}'),
        )
        return dict(line.split() for line in listed.splitlines())

    async def answer(self, port: int, question: bytes = b"") -> str:
        """What it says on a port of its own address."""
        inspected = json.loads(docker("inspect", self.containers()[self.name]))
        address = next(iter(inspected[0]["NetworkSettings"]["Networks"].values()))["IPAddress"]
        async with asyncio.timeout(HANG_GUARD_S):
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(question)
            said = await reader.read()
            writer.close()
            await writer.wait_closed()
        return said.decode()

    async def started(self, service: str) -> "asyncio.Task[None]":
        """A task that ends when a container of this service has started, later than now."""
        events = await asyncio.create_subprocess_exec(
            *("docker", "events", "--format", "{{.ID}}", "--since", docker("info", "-f", "{{.SystemTime}}")),
            *("--filter", "event=start", "--filter", f"label=com.docker.compose.project={self.name}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
            stdout=asyncio.subprocess.PIPE,
        )

        async def first() -> None:
            assert events.stdout is not None
            try:
                async with asyncio.timeout(HANG_GUARD_S):
                    assert await events.stdout.readline()
            finally:
                events.kill()
                await events.wait()

        return asyncio.create_task(first())

    def remove(self) -> None:
        """Remove all that it left, by its labels."""
        down = [
            "compose",
            "--project-name",
            self.name,
            "down",
            "--volumes",
            "--remove-orphans",
            "--timeout",
            "0",
        ]
        subprocess.run(["docker", *down], cwd="/", capture_output=True, check=True)
