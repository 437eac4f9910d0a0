"""Which runtime is taken, and what is said where it can't be used."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fleet import HANG_GUARD_S, Fleet, running_fleet, wait_status
from worker.runtimes.base import OperationFailed, RuntimeAway, RuntimeUnavailable
from worker.runtimes.registry import make_runtime, runtime_for_terminal
from worker.settings import WorkerSettings

pytestmark = pytest.mark.anyio

# Compose's own words, and an engine that answers from the moment that a file is there.
AWAY = """
import pathlib, sys
if "version" in sys.argv:
    print("2.40.3")
elif not (pathlib.Path(__file__).parent / "engine").exists():
    sys.exit("no daemon")
"""


def program(directory: Path, name: str, body: str) -> str:
    script = directory / name
    script.write_text(body)
    return f"{sys.executable} {script}"


def settings(directory: Path, runtime: str, command: str = "") -> WorkerSettings:
    return WorkerSettings(state_dir=directory, runtime=runtime, compose_command=command)


async def test_what_is_missing_is_said_and_processes_are_taken_by_up_alone_where_no_compose_is(
    tmp_path: Path,
) -> None:
    old = program(tmp_path, "old", "print('1.29.2')")
    away = program(tmp_path, "away", AWAY)
    expected = {
        old: (
            "process",
            RuntimeUnavailable,
            "version 1.29.2, which is too old; install Docker with Compose 2",
        ),
        away: ("compose", RuntimeAway, "the Docker engine can't be reached, .*: no daemon"),
        "no-such-compose": ("process", RuntimeUnavailable, "doesn't answer as Compose"),
    }
    for command, (taken, error, said) in expected.items():
        auto = settings(tmp_path, "auto", command)
        assert make_runtime(auto).name == "compose"
        assert await runtime_for_terminal(auto) == taken
        assert await runtime_for_terminal(settings(tmp_path, "compose", command)) == "compose"
        with pytest.raises(error, match=said):
            await make_runtime(auto).check()


async def test_without_docker_compose_says_that_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeUnavailable, match="Docker Compose is not installed; install"):
        await make_runtime(settings(tmp_path, "compose")).check()


@pytest.mark.parametrize("decky_name", ["decky-01", "compose"])
async def test_a_standalone_compose_is_asked_for_the_containers_of_any_decky(
    tmp_path: Path, decky_name: str
) -> None:
    restarts = program(
        tmp_path,
        "docker-compose",
        f"""
import sys
if "version" in sys.argv:
    print("2.40.3")
elif sys.argv[sys.argv.index("--project-name") + 1] == {decky_name!r} and "ps" in sys.argv:
    print("ssh,restarting,Restarting (1) 2 seconds ago")
""",
    )
    runtime = make_runtime(settings(tmp_path, "compose", restarts))
    with (
        (tmp_path / "lock").open("w") as lock,
        pytest.raises(OperationFailed, match="is restarted in vain"),
    ):
        await runtime.apply(decky_name, {"services": {"ssh": {}}}, lock_fd=lock.fileno(), on_line=print)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with running_fleet(runtime="auto") as fleet:
        yield fleet


async def test_a_worker_without_compose_does_not_start_and_runs_no_command_of_a_document(
    fleet: Fleet,
) -> None:
    status, _, err = await fleet.run("worker", DECNET_REAPER_COMPOSE_COMMAND="no-such-compose")
    assert status == 3
    assert "no-such-compose doesn't answer as Compose" in err


async def test_a_worker_waits_for_an_engine_that_does_not_answer(fleet: Fleet) -> None:
    fleet.set(compose_command=program(fleet.root, "compose", AWAY))
    worker = await fleet.start("worker")
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"))
        line = await worker.log("runtime.unreachable")
        assert (line["runtime"], "no daemon" in line["reason"]) == ("compose", True)
        assert (await client.get(lifecycle_id))["status"] == "pending"
        (fleet.root / "engine").touch()
        await worker.log("runtime.recovered")
        await wait_status(client, lifecycle_id, "succeeded")
    assert len(worker.logged("runtime.unreachable")) == 1


@pytest.mark.parametrize("command", ["no-such-compose", "away"])
async def test_up_says_that_deckies_are_local_processes(fleet: Fleet, command: str) -> None:
    if command == "away":
        command = program(fleet.root, "compose", AWAY)
    await fleet.kill_queue()
    fleet.set(compose_command=command, redis=f"unix://{fleet.socket}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reaper", "up"),
        env=fleet.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    seen = ""
    async with asyncio.timeout(HANG_GUARD_S):
        while not ("worker.started" in seen or "runtime.unreachable" in seen):
            seen += (await process.stderr.readline()).decode()
        process.terminate()
        await process.communicate()
    assert ("local processes of this user" in seen) == (command == "no-such-compose")
    assert ('"runtime": "process"' in seen) == (command == "no-such-compose")
