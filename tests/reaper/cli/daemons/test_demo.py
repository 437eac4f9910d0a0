"""The demonstration, which is the first thing that anybody runs."""

import asyncio
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


async def test_what_was_asked_for_and_can_not_be_used_is_said_and_leaves_nothing(fleet: Fleet) -> None:
    made = fleet.root / "tmp"
    made.mkdir()
    fleet.set(runtime="compose", compose_command="no-such-compose")
    status, out, err = await fleet.run("demo", TMPDIR=str(made))
    assert (status, out, "no-such-compose doesn't answer as Compose" in err) == (3, "", True)
    assert list(made.iterdir()) == []
