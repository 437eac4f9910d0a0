"""What tests on a real Docker engine or a real systemd may ask for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine.docker_engine import ComposeDecky, docker, make_image, need_engine


@pytest.fixture(scope="session")
def docker_image() -> Iterator[str]:
    """The name of a tiny image, gone when the tests are."""
    need_engine()
    image = make_image()
    yield image
    docker("image", "rm", "--force", image)


@pytest.fixture
def compose_decky(docker_image: str) -> Iterator[ComposeDecky]:
    """A decky that isn't there yet, and is gone after the test."""
    decky = ComposeDecky(docker_image)
    yield decky
    decky.remove()


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where machines are made: one directory for all processes of a test run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
