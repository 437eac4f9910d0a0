"""The client in somebody else's program: its lines go where that program's logging goes."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.fleet import HANG_GUARD_S

pytestmark = pytest.mark.anyio

MASTER = """
import asyncio, logging, sys
from pathlib import Path
from worker.client import LifecycleClient
from worker.settings import WorkerSettings

if sys.argv[2:]:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")

async def main():
    root = Path(sys.argv[1])
    async with LifecycleClient(WorkerSettings(state_dir=root / "state", runtime_dir=root / "run")) as client:
        await client.deploy("decky-01", {"services": {"decky-01": {"command": "sleep 9"}}})

asyncio.run(main())
"""


async def run_master(root: Path, *arguments: str) -> tuple[str, str]:
    (root / "state").mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MASTER, str(root), *arguments),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(HANG_GUARD_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


async def test_a_program_that_configured_no_logging_prints_nothing(tmp_path: Path) -> None:
    assert await run_master(tmp_path) == ("", "")


async def test_a_program_s_own_logging_gets_the_lines(tmp_path: Path) -> None:
    out, err = await run_master(tmp_path, "logging")
    assert out == ""
    assert "decnet-reaper: event=lifecycle.accepted " in err
    assert "event=queue.unreachable " in err  # no Redis here
