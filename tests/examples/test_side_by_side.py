"""Our wheel beside DECNET's package, with the versions that DECNET's lock names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.decnet.engine import environment
from tests.support.decnet.environment import LOCKED

ROOT = Path(__file__).parents[2]

VERSIONS = """
import json, re
from importlib.metadata import distributions
print(json.dumps({re.sub("[-_.]+", "-", d.name).lower(): d.version for d in distributions()}))
"""


def call(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def python() -> Path:
    return environment()


def test_the_wheel_finds_all_that_it_requires_beside_decnet(python: Path, tmp_path: Path) -> None:
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    # without an index: what is installed has to do
    said = call(*pip, "install", "--dry-run", "--no-index", "--report=-", "--quiet", wheel)
    assert [found["metadata"]["name"] for found in json.loads(said)["install"]] == ["decnet-reaper"]
    call(*pip, "check")
    versions = json.loads(call(python, "-c", VERSIONS))
    assert {f"{name}=={versions[name]}" for name in (pin.partition("==")[0] for pin in LOCKED)} == set(LOCKED)
