"""The doctor's findings, on real parts."""

import json
from typing import Any

import pytest

from tests.support.fleet import Fleet

pytestmark = pytest.mark.anyio

CHECKS = ["store", "schema", "queue", "locks", "rows", "runtime", "units", "clock", "space"]


async def findings(fleet: Fleet) -> tuple[int, dict[str, Any]]:
    status, out, err = await fleet.run("doctor", "--json")
    assert err == ""
    return status, json.loads(out)


async def test_a_healthy_installation(fleet: Fleet) -> None:
    status, found = await findings(fleet)
    assert list(found) == CHECKS
    assert status == 0
    assert all(set(finding) == {"ok", "state", "detail"} for finding in found.values())
    wrong = {name: finding for name, finding in found.items() if not finding["ok"]}
    assert wrong == {}
    assert str(fleet.root / "state" / "decnet-reaper.db") in found["store"]["detail"]
    assert found["queue"]["detail"].split(", ")[1].split()[0] in {"Redis", "Valkey"}
    assert found["runtime"]["detail"] == "process: local processes, not containers"


async def test_a_queue_that_is_away_says_what_to_do(fleet: Fleet) -> None:
    await fleet.kill_queue()
    status, out, err = await fleet.run("doctor")
    assert (status, err) == (3, "")
    [line] = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert "queue" in line
    assert "start Redis or Valkey" in line


async def test_a_store_that_cannot_be_used_fails_alone(fleet: Fleet) -> None:
    fleet.set(database=str(fleet.root))
    status, found = await findings(fleet)
    assert status == 3
    assert [name for name, finding in found.items() if not finding["ok"]] == [*("store", "schema", "rows")]


async def test_why_compose_was_refused_is_told(fleet: Fleet) -> None:
    fleet.set(runtime="auto", compose_command="no-such-compose")
    status, found = await findings(fleet)
    assert found["runtime"]["state"] == "doubtful"
    assert "local processes, no worker starts" in found["runtime"]["detail"]
    assert "no-such-compose" in found["runtime"]["detail"]
    assert status == 0
    fleet.set(runtime="compose")
    status, found = await findings(fleet)
    assert (status, found["runtime"]["state"]) == (3, "wrong")
