"""An operation is one file and one entry, and so is a runtime: those of the how-to pages, added and used."""

import re
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

HOW_TO = Path(__file__).parents[3] / "docs/how-to"


def code_of(page: str) -> ModuleType:
    """The first Python of a page, as the module that a reader would make of it."""
    module = ModuleType(page.replace("-", "_"))
    found = re.search(r"```python\n(.+?)```", (HOW_TO / f"{page}.md").read_text(), re.DOTALL)
    assert found is not None
    exec(found[1], module.__dict__)  # noqa: S102 - our own documentation
    return module


@pytest.fixture
def memory_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    module = code_of("add-a-runtime")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(RUNTIMES, "memory", f"{module.__name__}:MemoryRuntime")


@pytest.fixture
def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's operation, under a word that the store knows: others take a revision of its schema."""
    monkeypatch.setitem(OPERATIONS, "mutate", code_of("add-an-operation").Restart())


async def execute(fleet: Fleet, client: Any, runtime: Any, lifecycle_id: str) -> dict[str, Any]:
    queue = Queue(fleet.settings.redis)
    locks = DeckyLocks.of(fleet.settings)
    owner = Owner.mine(locks.directory.id)
    executor = Executor(client.repository, queue, locks, runtime, fleet.settings, owner)
    await executor.execute(lifecycle_id)
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


@pytest.mark.usefixtures("memory_runtime")
def test_the_setting_takes_its_choices_from_the_registry() -> None:
    assert load(ReaperSettings, {"DECNET_REAPER_RUNTIME": "memory"}).runtime == "memory"
    with pytest.raises(SettingsError, match=r"expected one of auto, .*memory"):
        load(ReaperSettings, {"DECNET_REAPER_RUNTIME": "podman"})
