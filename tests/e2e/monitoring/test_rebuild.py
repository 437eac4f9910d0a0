"""The log is enough: the table is rebuilt from it, and it holds no secret."""

from datetime import datetime
from typing import Any

import pytest

from repo.base import Lifecycle
from tests.support.audit import ENDS, TOLD, audit, rebuild
from tests.support.fleet import CLIENT_LOG, running_fleet
from tests.support.mixed_run import MixedRun
from worker.logging.events import EVENTS

pytestmark = pytest.mark.anyio


async def test_the_log_alone_rebuilds_the_table() -> None:
    await rebuilt(rounds=1, seed=5)


@pytest.mark.long
async def test_the_log_alone_rebuilds_the_table_of_a_long_run(request: pytest.FixtureRequest) -> None:
    if "long" not in request.config.option.markexpr:
        pytest.skip("takes minutes: -m long")
    await rebuilt(rounds=12, seed=7)


async def rebuilt(rounds: int, seed: int) -> None:
    async with running_fleet(stop_grace="200ms") as fleet, fleet.client() as client:
        await MixedRun(fleet, client, seed).run(rounds)
        for daemon in fleet.daemons:
            await daemon.stop()
            assert daemon.garbage == []
        await audit(fleet, client)
        rows = await client.repository.list_lifecycles(limit=100_000)
        everyone = fleet.lines()
        assert len({row["error"] for row in rows}) > 5, "the run was to have a bit of everything"
        assert rebuild(everyone).keys() == {row["id"] for row in rows}
        for row in rows:
            told_in_full(row, everyone)
        # Without the master's own log, what a production journal of the daemons has:
        daemons = [line for line in everyone if line not in CLIENT_LOG.lines]
        for row in rows:
            if row["claimed_at"] is not None:
                told_in_full(row, daemons)
        untold = {row["id"] for row in rows} - rebuild(daemons).keys()
        assert untold == {row["id"] for row in rows if row["claimed_at"] is None}
        assert {row["error"] for row in rows if row["id"] in untold} == {"cancelled by operator"}
        assert {line["event"] for line in everyone} <= EVENTS.keys()


def told_in_full(row: Lifecycle, lines: list[dict[str, Any]]) -> None:
    """The row, from its own lines."""
    about = [line for line in lines if line.get("lifecycle_id") == row["id"]]
    assert rebuild(about)[row["id"]] == {name: value for name, value in row.items() if name in TOLD}
    (end,) = [line for line in about if line["event"] in ENDS]
    if "timestamp" in end:  # the tests' own lines have none
        assert datetime.fromisoformat(row["completed_at"] or "") <= datetime.fromisoformat(end["timestamp"])
