"""A child is ended and awaited as a whole, and holds what it was given for as long as it lives."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fleet import HANG_GUARD_S
from worker.runtimes.subprocesses import environment, exited, plain_text, run, session

pytestmark = pytest.mark.anyio


PARENT = """
import asyncio, sys
from worker.runtimes.subprocesses import environment, run

def tell(line):
    print(line, flush=True)

asyncio.run(run(["sh", "-c", sys.argv[2]], env=environment(), pass_fds=[int(sys.argv[1])], on_line=tell))
"""

# In a process group of its own, as the docker client's plugins are.
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
os.setpgid(0, 0) if not child else print(os.getpid(), child, flush=True)
time.sleep(1000)
"""


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def first_line(*command: str) -> tuple[asyncio.Task[object], str]:
    """Start a command; the task that runs it, and the first line that it printed."""
    line: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def take(text: str) -> None:
        if not line.done():
            line.set_result(text)

    task: asyncio.Task[object] = asyncio.create_task(run(command, env=environment(), on_line=take))
    async with asyncio.timeout(HANG_GUARD_S):
        return task, await line


async def test_it_tells_the_exit_status_and_the_last_lines_of_both_streams() -> None:
    finished = await run(["sh", "-c", "echo out; echo err >&2; printf unended; exit 3"], env=environment())
    assert finished == (3, ["out", "err", "unended"])
    assert (await run(["sh", "-c", "kill -9 $$"], env=environment())).status == -9


async def test_endless_lines_and_endless_output_are_bounded() -> None:
    finished = await run(
        ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; seq 100000"], env=environment()
    )
    assert finished.lines[-1] == "100000"
    assert sum(map(len, finished.lines)) < 10_000


async def test_secrets_of_this_process_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECNET_REAPER_REDIS", "redis://:secret@h")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("COMPOSE_FILE", "secret.yaml")
    assert "secret" not in "".join((await run(["env"], env=environment())).lines)


async def test_what_a_command_leaves_behind_in_its_session_is_ended() -> None:
    finished = await run(["sh", "-c", "setpriv sleep 1000 & echo $!"], env=environment())
    assert finished.status == 0
    assert not alive(int(finished.lines[0]))


async def test_a_cancelled_child_is_asked_to_end_and_awaited() -> None:
    task, _line = await first_line(
        "sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_child_that_ignores_it_is_killed_even_when_cancelled_again_and_again() -> None:
    task, line = await first_line(sys.executable, "-c", DEAF)
    pids = [int(word) for word in line.split()]
    for _again in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(alive(pid) for pid in pids)
    assert session(pids[0]) == []


async def test_a_child_dies_with_its_parent_and_the_lock_is_held_while_any_process_of_it_lives(
    tmp_path: Path,
) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = "sleep 1000 & echo $$ $!; wait"
        parent = subprocess.Popen(  # noqa: ASYNC220 - its death is what is tested
            [sys.executable, "-c", PARENT, str(lock.fileno()), command],
            stdout=subprocess.PIPE,
            pass_fds=[lock.fileno()],
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert parent.stdout is not None
        with parent.stdout:
            leader, survivor = map(int, (await asyncio.to_thread(parent.stdout.readline)).split())
    with (tmp_path / "lock").open("w") as lock:
        parent.kill()
        parent.wait()
        async with asyncio.timeout(HANG_GUARD_S):
            await exited(leader)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(survivor, signal.SIGKILL)
        async with asyncio.timeout(HANG_GUARD_S):
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            await exited(survivor)


def test_terminal_codes_are_taken_out_of_text() -> None:
    assert plain_text(b"\x1b[31mred\x1b[0m \x1b]0;title\x07\xffx\x08\ty\n") == "red \ufffdx\ty\n"
