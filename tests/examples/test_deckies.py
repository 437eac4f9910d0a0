"""The deckies in examples/deckies: the README's commands work on them as they are typed."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.machine.docker_engine import need_engine

DECKIES = Path(__file__).parents[2] / "examples" / "deckies"


@pytest.mark.anyio
async def test_the_example_fleet_is_deployed_and_mutated(fleet: Fleet) -> None:
    await fleet.worker()
    await fleet.reaper()
    status, _, err = await fleet.run("deploy", "--fleet", str(DECKIES), "--wait")
    assert status == 0, err
    status, out, err = await fleet.run("mutate", "decky-01", "--services", "ssh,http", "--wait", "--json")
    assert status == 0, err
    assert json.loads(out)["status"] == "succeeded"


@pytest.mark.docker
@pytest.mark.parametrize("document", sorted(DECKIES.iterdir()), ids=lambda path: path.name)
def test_compose_takes_them(document: Path) -> None:
    need_engine()
    subprocess.run(["docker", "compose", "--file", document, "config", "--quiet"], check=True)
