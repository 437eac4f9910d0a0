"""An operation is one file and one entry, and so is a runtime: those of the how-to pages, added and used."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reaper.settings import ReaperSettings
from repo import base
from repo.settings import SettingsError
from tests.support.fleet import Fleet
from worker.execution.executor import Executor
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.operations.base import InvalidRequest
from worker.operations.registry import OPERATIONS
from worker.queue import Queue
from worker.runtimes.registry import RUNTIMES, make_runtime
from worker.settings import load

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
HOW_TO = ROOT / "docs/how-to"
RESTART = """
import asyncio
from worker.client import LifecycleClient

async def main():
    async with LifecycleClient() as client:
        row = await client.wait(await client.submit("restart", "decky-01"), timeout=60)
        print(row["operation"], row["status"])

asyncio.run(main())
"""


def text_of(page: str) -> str:
    """The first Python of a page."""
    found = re.search(r"```python\n(.+?)```", (HOW_TO / f"{page}.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def code_of(page: str) -> ModuleType:
    """The module that a reader would make of it."""
    module = ModuleType(page.replace("-", "_"))
    exec(text_of(page), module.__dict__)  # noqa: S102 - our own documentation
    return module


@pytest.fixture
def memory_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    module = code_of("add-a-runtime")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(RUNTIMES, "memory", f"{module.__name__}:MemoryRuntime")


@pytest.fixture
def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's operation, under a word that the store knows."""
    monkeypatch.setitem(OPERATIONS, "mutate", code_of("add-an-operation").Restart())


async def execute(fleet: Fleet, client: Any, runtime: Any, lifecycle_id: str) -> dict[str, Any]:
    queue = Queue(fleet.settings.redis)
    locks = DeckyLocks.of(fleet.settings)
    owner = Owner.mine(locks.directory.id)
    executor = Executor(client.repository, queue, locks, runtime, fleet.settings, owner)
    row = await client.get(lifecycle_id)
    await executor.execute(lifecycle_id, row["decky_name"])
    await queue.close()
    return dict(await client.get(lifecycle_id))


def test_the_store_and_the_registry_know_the_same_operations() -> None:
    assert tuple(OPERATIONS) == base.OPERATIONS


@pytest.mark.usefixtures("memory_runtime", "restart")
async def test_a_runtime_and_an_operation_are_added_by_their_entries_alone(fleet: Fleet) -> None:
    fleet.set(runtime="memory")
    runtime: Any = make_runtime(fleet.settings)
    async with fleet.client() as client:
        with pytest.raises(InvalidRequest, match="is not deployed"):
            await client.submit("mutate", "decky-01")
        document = fleet.document("decky-01", "ssh")
        deployed = await execute(fleet, client, runtime, await client.deploy("decky-01", document))
        assert deployed["status"] == "succeeded", deployed["error"]
        assert set(runtime.deckies["decky-01"]["services"]) == {"decky-01", "decky-01-ssh"}
        runtime.deckies.clear()
        lifecycle_id = await client.submit("mutate", "decky-01")
        restarted = await execute(fleet, client, runtime, lifecycle_id)
        assert restarted["status"] == "succeeded", restarted["error"]
        assert set(runtime.deckies["decky-01"]["services"]) == {"decky-01", "decky-01-ssh"}
        await execute(fleet, client, runtime, await client.teardown("decky-01"))
        assert runtime.deckies == {}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the product to which the operation was added as its page says."""
    for package in ("repo", "worker", "reaper"):
        shutil.copytree(
            ROOT / package, tmp_path / "sources" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    sources = tmp_path / "sources"
    (sources / "worker/operations/restart.py").write_text(text_of("add-an-operation"))
    for file, old, new in [
        ("repo/lifecycle.py", '"teardown"]', '"teardown", "restart"]'),
        ("worker/operations/registry.py", "\n}", '\n    "restart": Restart(),\n}'),
        ("worker/operations/registry.py", "\n\nOP", "\nfrom worker.operations.restart import Restart\n\nOP"),
    ]:
        text = (sources / file).read_text()
        assert text.count(old) == 1
        (sources / file).write_text(text.replace(old, new))
    return sources


async def test_a_word_of_its_own_is_all_that_the_store_needs(fleet: Fleet, sources: Path) -> None:
    for made in (fleet.root / "state").glob("decnet-reaper.db*"):
        made.unlink()  # by sources that don't know the word
    environment = {"PYTHONPATH": str(sources), "PYTHONSAFEPATH": "1"}
    await fleet.worker(**environment)
    document = fleet.document("decky-01", "ssh")
    deploy = await fleet.run(
        "deploy", "decky-01", "--compose", "-", "--wait", stdin=json.dumps(document).encode()
    )
    assert deploy[0] == 0, deploy
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RESTART), env=fleet.environment | environment, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().split() == ["restart", "succeeded"]


@pytest.mark.usefixtures("memory_runtime")
def test_the_setting_takes_its_choices_from_the_registry() -> None:
    assert load(ReaperSettings, {"DECNET_REAPER_RUNTIME": "memory"}).runtime == "memory"
    with pytest.raises(SettingsError, match=r"expected one of auto, .*memory"):
        load(ReaperSettings, {"DECNET_REAPER_RUNTIME": "podman"})
