"""DECNET's own package from PyPI, in an environment of its own, with services of our image."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.decnet import environment as decnet_environment
from tests.support.needs import lacking

_SERVICES = """
from decnet.services.base import BaseService


def fragment(name):
    command = {{"command": ["sleep", "600"], "stop_grace_period": "0s"}}
    return {{"image": "{image}", "container_name": name, **command}}


class Web(BaseService):
    name, ports, default_image = "web", [80], "{image}"

    def compose_fragment(self, decky_name, log_target=None, service_cfg=None):
        return fragment(f"{{decky_name}}-web")

    def dockerfile_context(self):
        return None


class Mail(BaseService):
    name, ports, default_image = "mail", [25], "{image}"

    def compose_fragment(self, decky_name, log_target=None, service_cfg=None):
        return fragment(f"{{decky_name}}-mail")

    def dockerfile_context(self):
        return None
"""
_RECORD = """
import asyncio
import sys

from decnet.config import DecnetConfig
from decnet.models import DeckyConfig
from decnet.web.db.factory import get_repository

image, *names = sys.argv[1:]
deckies = [
    DeckyConfig(
        name=name, ip=f"172.31.77.{20 + n}", services=["web", "mail"], distro="debian", base_image=image,
        hostname=name,
    )
    for n, name in enumerate(names)
]
config = DecnetConfig(
    mode="unihost", interface="none", subnet="172.31.77.0/24", gateway="172.31.77.1", deckies=deckies
)


async def record():
    repository = get_repository()
    await repository.initialize()
    state = {"config": config.model_dump(), "compose_path": "decnet-compose.yml"}
    await repository.set_state("deployment", state)


asyncio.run(record())
"""


class Decnet:
    """An installation of DECNET: its package, its state and its database below a directory.

    Args:
        directory: where it is; made.
        image: for everything that runs.
    """

    def __init__(self, directory: Path, image: str) -> None:
        self.directory = directory
        self._image = image
        python = environment()
        package = next(python.parents[1].glob("lib/python3*/site-packages/decnet"))
        shutil.copytree(package, directory / "decnet")
        (directory / "decnet/services/ours.py").write_text(_SERVICES.format(image=image))
        password, secret = "A-test-s-Password-1", "0123456789abcdef" * 4
        (directory / ".env").write_text(f"DECNET_ADMIN_PASSWORD={password}\nDECNET_JWT_SECRET={secret}\n")
        ours = Path(__file__).parents[3]
        self.python = ["env", f"PYTHONPATH={directory}:{ours}", str(python)]

    def record(self, *names: str) -> None:
        """What DECNET's API writes down before it asks for a deploy of these deckies."""
        command = [*self.python, "-c", _RECORD, self._image, *names]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @property
    def state(self) -> Path:
        """Its state file, which its dashboard and its reconciler read."""
        return self.directory / "decnet-state.json"


def environment() -> Path:
    """The Python of DECNET's environment; a newcomer's machine need not have one."""
    if not decnet_environment.is_made() and os.environ.get("DECNET_REQUIRE_E2E") != "1":
        lacking("DECNET's package")
    return decnet_environment.make()
