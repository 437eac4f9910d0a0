"""The demonstration, which is the first thing that anybody runs."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.fleet import HANG_GUARD_S, Fleet

pytestmark = pytest.mark.anyio

AWAY = "import sys; print('2.40.3') if 'version' in sys.argv else sys.exit('permission denied')"


async def test_it_takes_local_processes_where_the_engine_can_not_be_used(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Docker is installed, and its engine is stopped, or belongs to a group that this user is not in."""
    script = tmp_path / "compose"
    script.write_text(AWAY)
    fleet.set(runtime="auto", compose_command=f"{sys.executable} {script}")
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reaper", "demo"),
        env=fleet.environment | {"TMPDIR": str(fleet.root)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert demo.stdout is not None
    async with asyncio.timeout(HANG_GUARD_S):
        first = (await demo.stdout.readline()).decode()
        assert first.startswith("Deckies run as local processes: the Docker engine can't be reached")
        assert "permission denied" in first
        demo.send_signal(signal.SIGINT)
        await asyncio.gather(demo.stdout.read(), demo.wait())


DOCKER = """#!/bin/sh
echo "$*" >>{root}/calls
case "$*" in
*" version --short") echo 2.40.3 ;;
*"-04 --file "*" up "*) echo the port is taken; exit 1 ;;
*"-05 --file "*" up "*) mkdir {root}/slow 2>&1 || exit 0; exec sleep 3600 ;;
esac
"""
CONFIG = """
host_uuid = "h1"
max_attempts = 1
runtime = "compose"
compose_command = "{root}/mine compose"
"""


async def test_its_deckies_are_its_own_and_so_are_its_settings_but_for_the_runtime(fleet: Fleet) -> None:
    """Compose knows a decky by its name alone: one of the fleet's would be taken down in the end."""
    mine, docker = fleet.root / "mine", fleet.root / "bin" / "docker"
    docker.parent.mkdir()
    for program, text in ((mine, DOCKER.format(root=fleet.root)), (docker, "#!/bin/sh\n")):
        program.write_text(text)
        program.chmod(0o755)
    (fleet.root / "config.toml").write_text(CONFIG.format(root=fleet.root))
    del fleet.environment["DECNET_REAPER_RUNTIME"]
    status, out, err = await fleet.run("demo", PATH=f"{docker.parent}:{os.environ['PATH']}")
    assert (status, err) == (0, ""), out
    assert "Everything was as it should be" in out
    calls = (fleet.root / "calls").read_text()
    projects = set(re.findall(r"--project-name (\S+) --file \S+ up ", calls))
    [number] = {name.removeprefix("demo-").rpartition("-")[0] for name in projects}
    assert re.fullmatch(r"[0-9a-f]{6}", number)
    assert projects == {f"demo-{number}-0{place}" for place in range(1, 6)}
    assert set(re.findall(r"--project-name (\S+)", calls)) == projects
    assert set(re.findall(r"--project-name (\S+) down ", calls)) == projects


async def test_what_was_asked_for_and_can_not_be_used_is_said_and_leaves_nothing(fleet: Fleet) -> None:
    made = fleet.root / "tmp"
    made.mkdir()
    fleet.set(runtime="compose", compose_command="no-such-compose")
    status, out, err = await fleet.run("demo", TMPDIR=str(made))
    assert (status, out, "no-such-compose doesn't answer as Compose" in err) == (3, "", True)
    assert list(made.iterdir()) == []
