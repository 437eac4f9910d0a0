"""Deckies as local processes, with the kernel as the only memory."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import HANG_GUARD_S
from worker.runtimes.base import OperationFailed
from worker.runtimes.process import ProcessRuntime
from worker.runtimes.subprocesses import exited, session

pytestmark = pytest.mark.anyio

IDLE: dict[str, Any] = {"command": ["sleep", "1000"]}


class Decky:
    """One decky on the process runtime."""

    name = "decky-01"

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.runtime = ProcessRuntime(state_dir)
        self.lines: list[str] = []

    async def apply(self, services: dict[str, Any]) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            await self.runtime.apply(self.name, {"services": services}, lock_fd=-1, on_line=self.lines.append)

    async def refused(self, services: dict[str, Any]) -> str:
        with pytest.raises(OperationFailed) as failed:
            await self.apply(services)
        return str(failed.value)

    def pids(self) -> dict[str, int]:
        """Its services' first processes, as the kernel tells."""
        found = {}
        for process in Path("/proc").iterdir():
            try:
                entries = (process / "environ").read_text().split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            names = dict(entry.split("=", 1) for entry in entries if "=" in entry)
            if (
                names.get("DECNET_STATE") == str(self.state_dir)
                and names.get("DECNET_LEADER") == process.name
            ):
                assert names["DECNET_DECKY"] == self.name
                found[names["DECNET_SERVICE"]] = int(process.name)
        return found

    def log(self, service: str) -> str:
        return (self.state_dir / "deckies" / self.name / f"{service}.log").read_text()


@pytest.fixture
async def decky(tmp_path: Path) -> AsyncIterator[Decky]:
    decky = Decky(tmp_path)
    yield decky
    await decky.runtime.remove(decky.name)
    assert decky.pids() == {}


async def test_services_run_as_processes_until_any_worker_removes_them(decky: Decky) -> None:
    await decky.apply({"decky-01": IDLE, "decky-01-ssh": IDLE})
    assert set(decky.pids()) == {"decky-01", "decky-01-ssh"}
    await ProcessRuntime(decky.state_dir).remove(decky.name)
    assert decky.pids() == {}


async def test_a_service_that_is_just_starting_is_removed_too(decky: Decky) -> None:
    for _round in range(40):
        applying = asyncio.create_task(decky.apply({"d": IDLE}))
        while not decky.lines:
            await asyncio.sleep(0)
        decky.lines.clear()
        await decky.runtime.remove(decky.name)
        with contextlib.suppress(OperationFailed):
            await applying
        assert decky.pids() == {}


async def test_a_program_beside_it_whose_name_the_kernel_cut_within_a_letter_is_no_hindrance(
    decky: Decky, tmp_path: Path
) -> None:
    program = shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / ("é" * 8))
    other = subprocess.Popen([program, "600"], env={})  # noqa: ASYNC220 - it is nobody's service
    try:
        await decky.apply({"d": IDLE})
        assert set(decky.pids()) == {"d"}
    finally:
        other.kill()
        other.wait()


async def test_what_is_done_is_told_and_nothing_twice(decky: Decky) -> None:
    test = "test -e b && exit; test -e a && touch b; touch a; echo no host key; exit 1"
    check = {"test": test, "interval": "10ms", "retries": 1000}
    services = {"d": IDLE, "ssh": {**IDLE, "healthcheck": check}}
    await decky.apply(services)
    assert decky.lines == ["d started", "ssh started", "ssh is not healthy yet: no host key"]
    await decky.apply(services)
    assert len(decky.lines) == 3


async def test_only_what_has_changed_is_stopped_and_started(decky: Decky) -> None:
    await decky.apply({"d": IDLE, "ssh": {**IDLE, "depends_on": ["d"]}, "ftp": IDLE, "smb": IDLE})
    before = decky.pids()
    changed = {**IDLE, "environment": {"BANNER": "new"}}
    again = Decky(decky.state_dir)  # a worker that knows nothing of the first
    await again.apply({"d": IDLE, "ssh": IDLE, "ftp": changed, "http": IDLE})
    after = decky.pids()
    assert set(after) == {"d", "ssh", "ftp", "http"}
    assert (after["d"], after["ssh"]) == (before["d"], before["ssh"])
    assert after["ftp"] != before["ftp"]


async def test_a_service_that_died_is_started_again_and_its_leftovers_are_ended(decky: Decky) -> None:
    forking = {
        "command": "sh -c 'sleep 1000 & echo $$! > child; wait'",
        "healthcheck": {"test": "test -s child"},
    }
    await decky.apply({"d": forking, "ssh": IDLE})
    before = decky.pids()
    child = int((decky.state_dir / "deckies" / decky.name / "child").read_text())
    os.kill(before["d"], signal.SIGKILL)
    await exited(before["d"])
    await decky.apply({"d": IDLE, "ssh": IDLE})
    after = decky.pids()
    assert after["d"] != before["d"]
    assert after["ssh"] == before["ssh"]
    await exited(child)  # would hang if it lived


async def test_services_get_command_entrypoint_and_environment_as_in_compose(
    decky: Decky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECNET_REAPER_REDIS", "secret")
    monkeypatch.setenv("PASSED", "secret")
    service = {
        "image": "ignored",
        "entrypoint": ["sh", "-c"],
        "command": ['echo "$$A|$$B|$$C|$$PASSED|$$DECNET_REAPER_REDIS|"; sleep 1000'],
        "healthcheck": {"test": ["CMD", "test", "-s", "d.log"], "retries": 100},
    }
    await decky.apply({"d": {**service, "environment": {"A": "x y", "B": True, "C": 7, "PASSED": None}}})
    assert decky.log("d") == "x y|true|7|||\n"
    await decky.apply({"d": {**service, "environment": ["A=x=y", "B=$$", "PASSED"]}})
    assert decky.log("d") == "x=y|$||||\n"
    assert (decky.state_dir / "deckies" / decky.name / "d.log").stat().st_mode & 0o777 == 0o600
    assert (decky.state_dir / "deckies").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ({"command": "sh -c 'echo no host key >&2; exit 3'"}, "service d exited with status 3: no host key"),
        ({"command": ["true"]}, "service d exited with status 0: no output"),
        ({"command": "sh -c 'kill -9 $$$$'"}, "service d was ended by signal 9: no output"),
        ({"command": "no-such-program"}, "service d exited with status 127: .*no-such-program.*not found"),
        ({"image": "x"}, "service d has no `command`: the process runtime needs one"),
        ({"command": "'"}, "service d: command can't be split into words"),
        ({"command": {"a": 1}}, "service d: command must be text, or a list of texts"),
        ({**IDLE, "environment": 3}, "service d: environment must be a mapping"),
        ({**IDLE, "healthcheck": 3}, "service d: healthcheck must be a mapping"),
        ({**IDLE, "healthcheck": {"test": ["true"]}}, "must begin with CMD, CMD-SHELL or NONE"),
        ({**IDLE, "healthcheck": {"test": []}}, "must begin with CMD, CMD-SHELL or NONE"),
        (
            {**IDLE, "healthcheck": {"test": "true", "interval": "soon"}},
            "interval must be a duration such as",
        ),
        ({**IDLE, "healthcheck": {"test": "true", "retries": 0}}, "retries must be a number from 1 on"),
        (
            {**IDLE, "healthcheck": {"test": "echo no banner; false", "interval": "50ms", "retries": 2}},
            "service d is unhealthy: no banner",
        ),
        (
            {
                **IDLE,
                "healthcheck": {"test": "sleep 1000", "interval": "10ms", "timeout": "50ms", "retries": 1},
            },
            "service d is unhealthy: no answer in 0.05 s",
        ),
        (
            {"command": "sleep 0.3", "healthcheck": {"test": ["CMD", "false"]}},
            "service d exited with status 0",
        ),
    ],
)
async def test_a_service_that_does_not_come_up_fails_with_its_own_reason(
    decky: Decky, service: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runtimes.process._SETTLE", 30.0)  # however late a busy machine begins it
    with pytest.raises(OperationFailed, match=said):
        await decky.apply({"d": service, "other": IDLE})


@pytest.mark.parametrize("check", [{"test": ["NONE"]}, {"test": "false", "disable": True}, {}])
async def test_a_healthcheck_can_be_turned_off(decky: Decky, check: dict[str, Any]) -> None:
    await decky.apply({"d": {**IDLE, "healthcheck": check}})
    assert set(decky.pids()) == {"d"}


async def test_a_service_is_up_once_its_healthcheck_passes(decky: Decky) -> None:
    slow = {"command": "sh -c 'sleep 0.5; touch ready; sleep 1000'"}
    check = {"test": ["CMD", "test", "-e", "ready"], "interval": "1m30s"}
    await decky.apply({"d": {**slow, "healthcheck": check}})
    assert (decky.state_dir / "deckies" / decky.name / "ready").exists()


async def test_a_service_deaf_to_sigterm_is_ended_with_its_whole_session(decky: Decky) -> None:
    deaf = {"command": "sh -c 'trap \"\" TERM; touch deaf; env -i sleep 1000; sleep 1000'"}
    await decky.apply({"d": {**deaf, "healthcheck": {"test": "test -e deaf"}}})
    leader = decky.pids()["d"]
    await decky.apply({"e": IDLE})
    assert set(decky.pids()) == {"e"}
    assert session(leader) == []


async def test_installations_and_deckies_do_not_see_each_other(decky: Decky, tmp_path: Path) -> None:
    await decky.apply({"d": IDLE})
    other = ProcessRuntime(tmp_path / "other")
    await other.apply(decky.name, {"services": {"x": IDLE}}, lock_fd=-1, on_line=decky.lines.append)
    await decky.runtime.apply("decky-02", {"services": {"y": IDLE}}, lock_fd=-1, on_line=decky.lines.append)
    await other.remove(decky.name)
    await decky.runtime.remove("decky-02")
    assert set(decky.pids()) == {"d"}


async def test_a_cancelled_operation_ends_its_healthcheck_and_the_next_one_converges(decky: Decky) -> None:
    directory = decky.state_dir / "deckies" / decky.name
    directory.mkdir(parents=True)
    os.mkfifo(directory / "checking")
    waiting = {**IDLE, "healthcheck": {"test": "echo $$$$ > checking; exec sleep 1000", "timeout": "1h"}}
    task = asyncio.create_task(decky.apply({"d": waiting}))
    checking = int(await asyncio.to_thread((directory / "checking").read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(checking, 0)
    await decky.apply({"d": IDLE})
    assert set(decky.pids()) == {"d"}


async def test_a_service_that_is_just_starting_is_seen(decky: Decky) -> None:
    again = 'exec sh -c "$$0" "$$0"'  # it never does anything but start
    for _ in range(200):
        await decky.apply({"d": {"command": ["sh", "-c", again, again]}})
    assert decky.lines == ["d started"]


async def test_services_outlive_a_killed_worker_without_its_lock(decky: Decky) -> None:
    worker = subprocess.Popen(  # noqa: ASYNC220 - its death is what is tested
        [sys.executable, "-c", WORKER, str(decky.state_dir)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
    )
    assert worker.stdout is not None
    with worker.stdout as said:
        assert await asyncio.to_thread(said.readline) == b"up\n"
        worker.kill()
        worker.wait()
        assert said.read() == b""  # nobody else holds the pipe
    before = decky.pids()
    assert set(before) == {"d"}
    await decky.apply({"d": IDLE})
    assert decky.pids() == before


WORKER = """
import asyncio, os, sys
from pathlib import Path
from worker.runtimes.process import ProcessRuntime
async def main():
    os.set_inheritable(1, True)
    services = {"d": {"command": ["sleep", "1000"]}}
    runtime = ProcessRuntime(Path(sys.argv[1]))
    await runtime.apply("decky-01", {"services": services}, lock_fd=1, on_line=[].append)
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_ended_services_leave_no_zombie(decky: Decky) -> None:
    await decky.apply({"d": IDLE, "e": IDLE})
    pid = decky.pids()["d"]
    os.kill(pid, signal.SIGKILL)
    await exited(pid)
    await decky.apply({"d": IDLE})
    await asyncio.sleep(0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("name", ["", "../x", "-x", ".", "a" * 129, "x/y"])
async def test_a_name_that_is_no_decky_is_refused_before_a_path_is_made_of_it(
    decky: Decky, name: str
) -> None:
    with pytest.raises(OperationFailed, match="can't be a decky's name"):
        await decky.runtime.apply(name, {"services": {"d": IDLE}}, lock_fd=-1, on_line=print)


async def test_a_state_directory_that_cannot_be_used_is_a_clear_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperationFailed, match="can't be used: "):
        await ProcessRuntime(tmp_path / "file" / "state").apply(
            "d", {"services": {"d": IDLE}}, lock_fd=-1, on_line=print
        )
