"""Daemons that see less of the machine, or that are a container's process 1."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.fleet import Fleet, gated
from tests.support.programs.other_user import python_as
from tests.support.programs.terminal import Terminal

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

# A process of another user at the owner's pid: that was used again, or the worker runs as another user.
HIDDEN = """
import sys
from worker.liveness.holders import may_hold
from worker.liveness.owner import Owner, exists
pid = int(sys.argv[1])
owner = Owner.mine("locks")._replace(pid=pid, started=1)
owner.kill()
print(owner.alive, exists(pid), owner._replace(pid=2**22 + 1).alive, may_hold(pid, lambda entry: False))
"""


@as_root
@pytest.mark.parametrize("hidepid", ["noaccess", "invisible"])
def test_an_owner_that_is_hidden_is_neither_an_error_nor_dead_nor_killed(hidepid: str) -> None:
    other = subprocess.Popen(["sleep", "600"])
    place = TemporaryDirectory()
    try:
        Path(place.name).chmod(0o755)
        python = python_as(65534, Path(place.name), first=f"mount -t proc -o hidepid={hidepid} proc /proc")
        answer = subprocess.run(
            [*python, "-c", HIDDEN, str(other.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (answer.stdout, answer.stderr) == ("True True False True\n", "")
        assert other.poll() is None
    finally:
        place.cleanup()
        other.kill()
        other.wait()


# As a container's entry point has it: what it starts beside the daemon loses its parent.
CONTAINER = """
setsid sh -c '(sleep 0.01; exit 0) & (sleep 0.01; exit 0) &'
exec "$@"
"""


@as_root
@pytest.mark.anyio
async def test_process_1_of_a_container_leaves_no_zombie_and_passes_signals_on(fleet: Fleet) -> None:
    worker = await fleet.start_in(
        ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", CONTAINER, "sh"), "worker"
    )
    line = await worker.log("worker.started")
    assert line["pid"] != 1
    (inside,) = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    children = Path(f"/proc/{inside}/task/{inside}/children").read_text().split()
    assert len(children) == 1, "zombies of the container's process 1"
    os.kill(int(inside), 15)
    await worker.log("worker.stopped")
    assert await worker.process.wait() == 0


@as_root
@pytest.mark.anyio
async def test_one_ctrl_c_in_a_container_with_a_terminal_counts_once(fleet: Fleet) -> None:
    await fleet.kill_queue()
    own_terminal = ("setsid", "--ctty", "--wait")
    container = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "reaper")
    async with Terminal(fleet, "up", program=(*own_terminal, *container), columns=200) as terminal:
        await terminal.shows("reaper.started")
        async with fleet.client() as client:
            lifecycle_id = await gated(fleet, client)
            terminal.types("\x03")
            await terminal.shows("stopping when deploy of decky-01 is done")
            fleet.gate().touch()
            assert await terminal.ended() == 0
            row = await client.get(lifecycle_id)
        assert (row["status"], row["error"]) == ("succeeded", None)
