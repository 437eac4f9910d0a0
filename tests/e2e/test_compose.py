"""Deckies on a real Docker engine."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import HANG_GUARD_S
from tests.support.machine.docker_engine import ComposeDecky, docker
from worker.documents import document as documents
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.locks import DeckyLock, DeckyLocks
from worker.runtimes.base import OperationFailed, project_name
from worker.runtimes.compose import ComposeRuntime
from worker.runtimes.registry import make_runtime
from worker.runtimes.subprocesses import exited
from worker.settings import WorkerSettings

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

NEVER_HEALTHY = {"test": ["CMD", "false"], "interval": "200ms", "retries": 100_000}

WORKER = """
import asyncio, json, sys
from pathlib import Path
from worker.runtimes.subprocesses import exited
from worker.runtimes.compose import ComposeRuntime
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.locks import DeckyLocks

name, root = sys.argv[1], Path(sys.argv[2])
with DeckyLocks(LockDirectory(root)).try_lock(name, None) as lock:
    apply = ComposeRuntime(root).apply(name, json.load(sys.stdin), lock_fd=lock.fd, on_line=[].append)
    asyncio.run(apply)
"""


@pytest.fixture
def lock(compose_decky: ComposeDecky, tmp_path: Path) -> Iterator[DeckyLock]:
    held = DeckyLocks(LockDirectory(tmp_path)).try_lock(compose_decky.name, None)
    assert held is not None
    with held:
        yield held


async def apply(decky: ComposeDecky, document: dict[str, Any], lock: DeckyLock, root: Path) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        await ComposeRuntime(root).apply(decky.name, document, lock_fd=lock.fd, on_line=print)


async def refused(decky: ComposeDecky, document: dict[str, Any], lock: DeckyLock, root: Path) -> str:
    with pytest.raises(OperationFailed) as failed:
        await apply(decky, document, lock, root)
    assert lock.survivors() == []
    assert len(str(failed.value)) <= 2000
    return str(failed.value)


async def test_services_answer_on_the_bases_address_and_a_swap_leaves_the_base_alone(
    compose_decky: ComposeDecky, lock: DeckyLock, tmp_path: Path
) -> None:
    decky = compose_decky
    runtime = make_runtime(WorkerSettings(state_dir=tmp_path))
    assert runtime.name == "compose"
    assert "whose engine answers" in await runtime.check()
    await apply(decky, decky.document("http", "ssh"), lock, tmp_path)
    before = decky.containers()
    assert (await decky.answer(22)).startswith("SSH-2.0-decoy")
    assert "a decoy" in await decky.answer(80, b"GET /index.html HTTP/1.0\r\n\r\n")

    await apply(decky, decky.document("http", "ftp"), lock, tmp_path)
    after = decky.containers()
    assert set(after) == {decky.name, f"{decky.name}-http", f"{decky.name}-ftp"}
    assert after[decky.name] == before[decky.name]
    assert after[f"{decky.name}-http"] == before[f"{decky.name}-http"]
    with pytest.raises(ConnectionRefusedError):
        await decky.answer(22)

    await ComposeRuntime(tmp_path).remove(decky.name)
    await ComposeRuntime(tmp_path).remove(decky.name)
    assert decky.containers() == {}


async def test_the_document_is_kept_for_this_user_only(
    compose_decky: ComposeDecky, lock: DeckyLock, tmp_path: Path
) -> None:
    document = compose_decky.document(environment={"PASSWORD": "secret"})
    await apply(compose_decky, document, lock, tmp_path)
    directory = tmp_path / "deckies" / compose_decky.name
    assert [file.name for file in directory.iterdir()] == ["compose.yaml"]
    assert json.loads((directory / "compose.yaml").read_text()) == document
    assert (directory / "compose.yaml").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_the_workers_environment_does_not_get_into_a_document(
    compose_decky: ComposeDecky, lock: DeckyLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECNET_REAPER_REDIS", "secret")
    command = ["sh", "-c", "echo got ${DECNET_REAPER_REDIS:-nothing}; exit 1"]
    assert "got nothing" in await refused(
        compose_decky, compose_decky.document("ssh", command=command), lock, tmp_path
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": ["sh", "-c", "echo no host key >&2; exit 3"]}, "exited with status 3: no host key"),
        (
            {"command": ["sh", "-c", "echo no host key; exit 3"], "restart": "unless-stopped"},
            "exited with status 3 and is restarted in vain: no host key",
        ),
        (
            {
                "command": ["sh", "-c", "echo no host key; sleep 0.4; exit 3"],
                "restart": "unless-stopped",
                "healthcheck": NEVER_HEALTHY,
            },
            "exited with status 3 and is restarted in vain: no host key",
        ),
        (
            {
                "command": ["sh", "-c", "printf '\\033[31mno banner\\033[0m\\n'; sleep infinity"],
                "healthcheck": NEVER_HEALTHY | {"retries": 2},
            },
            "unhealthy: no banner",
        ),
        ({"image": "127.0.0.1:1/no/such:image"}, "127.0.0.1:1"),
        ({"command": ["no-such-program"]}, "no-such-program"),
        ({"cap_add": 3}, "cap_add must be a"),
    ],
    ids=["exits", "restarts", "restarts slowly", "unhealthy", "image", "program", "schema"],
)
async def test_a_failure_carries_its_real_reason(
    compose_decky: ComposeDecky, lock: DeckyLock, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    reason = await refused(compose_decky, compose_decky.document("ssh", **changes), lock, tmp_path)
    assert said in reason
    assert "\x1b" not in reason
    assert "Creating" not in reason


async def test_what_a_document_builds_is_built_again_when_its_context_has_changed(
    compose_decky: ComposeDecky, docker_image: str, lock: DeckyLock, tmp_path: Path
) -> None:
    decky, context = compose_decky, tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nCOPY index.html /srv/index.html\n")
    document = decky.document("http")
    http = document["services"][f"{decky.name}-http"]
    del http["image"]
    http["build"] = {"context": str(context), "args": {"BASE_IMAGE": docker_image}}
    for page in ("the first page", "a changed page"):
        (context / "index.html").write_text(page)
        await apply(decky, document, lock, tmp_path)
        assert page in await decky.answer(80, b"GET /index.html HTTP/1.0\r\n\r\n")

    (context / "Dockerfile").write_text(f"FROM {docker_image}\nRUN echo no such package; exit 7\n")
    reason = await refused(decky, document, lock, tmp_path)
    assert "no such package" in reason
    assert "exit code: 7" in reason
    docker("image", "rm", "--force", f"{decky.name}-{decky.name}-http")


async def test_an_external_network_that_is_not_there_is_named_with_what_to_do(
    compose_decky: ComposeDecky, lock: DeckyLock, tmp_path: Path
) -> None:
    document = compose_decky.document(networks=[f"{compose_decky.name}-lan"])
    document["networks"] = {f"{compose_decky.name}-lan": {"external": True}}
    reason = await refused(compose_decky, document, lock, tmp_path)
    assert f"`docker network create {compose_decky.name}-lan`" in reason
    docker("network", "create", f"{compose_decky.name}-lan")
    await apply(compose_decky, document, lock, tmp_path)
    await ComposeRuntime(tmp_path).remove(compose_decky.name)
    docker("network", "rm", f"{compose_decky.name}-lan")


async def test_a_name_that_compose_does_not_take_is_a_project_of_its_own(
    docker_image: str, tmp_path: Path
) -> None:
    deckies = [ComposeDecky(docker_image), ComposeDecky(docker_image)]
    lower = deckies[0].name
    deckies[1].name = f"{lower.title()}.lan"
    with pytest.raises(OperationFailed):
        await ComposeRuntime(tmp_path).apply("a/b", deckies[0].document(), lock_fd=0, on_line=print)
    for decky in deckies:
        held = DeckyLocks(LockDirectory(tmp_path)).try_lock(decky.name, None)
        assert held is not None
        with held:
            await apply(decky, decky.document(), held, tmp_path)
    projects = docker("ps", "--format", '{{.Label "com.docker.compose.project"}}').splitlines()
    for decky in deckies:
        assert project_name(decky.name) in projects
        await ComposeRuntime(tmp_path).remove(decky.name)


async def test_only_the_deckys_own_services_of_a_document_with_several_are_touched(
    compose_decky: ComposeDecky, lock: DeckyLock, tmp_path: Path
) -> None:
    decky, other = compose_decky.name, ComposeDecky("x").name
    document = compose_decky.document("ftp")
    document["services"][other] = compose_decky.idle()
    document["services"][f"{other}-ftp"] = {**compose_decky.idle(), "network_mode": f"service:{other}"}
    document = documents.parse(document, decky)
    chosen = documents.choose(document, decky, None)
    await apply(compose_decky, documents.select(document, decky, chosen), lock, tmp_path)
    assert set(compose_decky.containers()) == {decky, f"{decky}-ftp"}


async def test_a_cancelled_operation_leaves_no_process_and_the_next_one_converges(
    compose_decky: ComposeDecky, lock: DeckyLock, tmp_path: Path
) -> None:
    document = compose_decky.document("ssh", healthcheck=NEVER_HEALTHY)
    started = await compose_decky.started(f"{compose_decky.name}-ssh")
    task = asyncio.create_task(apply(compose_decky, document, lock, tmp_path))
    await started
    assert len(lock.survivors()) >= 1
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lock.survivors() == []
    assert (
        DeckyLocks(LockDirectory(tmp_path)).try_lock(compose_decky.name, None) is None
    )  # ours is still held
    await apply(compose_decky, compose_decky.document("ftp"), lock, tmp_path)
    assert set(compose_decky.containers()) == {compose_decky.name, f"{compose_decky.name}-ftp"}


async def test_after_a_workers_death_the_lock_is_free_once_compose_is_gone(
    compose_decky: ComposeDecky, tmp_path: Path
) -> None:
    locks, name = DeckyLocks(LockDirectory(tmp_path)), compose_decky.name
    document = compose_decky.document("ssh", healthcheck=NEVER_HEALTHY)
    started = await compose_decky.started(f"{name}-ssh")
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, name, str(tmp_path)),
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(document).encode())
    worker.stdin.close()
    await started
    assert locks.try_lock(name, None) is None
    compose = {hold.pid for hold in locks.holders(name, None)} - {worker.pid}
    assert compose
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    async with asyncio.timeout(HANG_GUARD_S):
        while (lock := locks.try_lock(name, None)) is None:
            await asyncio.sleep(0.01)
        with lock:
            for pid in compose:  # they have let go of it, so they are ending
                await exited(pid)
