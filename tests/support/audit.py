"""The auditor: what must hold after every scenario, over store, locks, queue and log."""

import asyncio
import signal
from collections import defaultdict
from collections.abc import Set
from typing import Any

from repo.base import OPEN, Lifecycle
from tests.model.replay import replay
from tests.support.fleet import HANG_GUARD_S, Fleet
from worker.client import LifecycleClient
from worker.liveness.locks import DeckyLocks
from worker.queue import Delivery, Queue

STARTS = {"lifecycle.running": "running"}
ENDS = {
    "lifecycle.succeeded": "succeeded",
    "lifecycle.failed": "failed",
    "lifecycle.interrupted": "failed",
    "lifecycle.swept": "failed",
    "lifecycle.timed_out": "failed",
    "lifecycle.expired": "failed",
    "lifecycle.lost": "failed",
    "lifecycle.cancelled": "failed",
}
SWEPT = {"lifecycle.swept", "lifecycle.timed_out", "lifecycle.cancelled", "lifecycle.lost"}
IDENTITY = ("decky_name", "operation", "host_uuid", "attempt", "retry_of")
TOLD = (*IDENTITY, "status", "error", "owner", "started_at", "claimed_at")


def rebuild(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The table, from nothing but the log.

    The daemons' lines are enough for each row that was claimed or swept; one that still waits, or was
    cancelled while it waited, is told by the master. `completed_at` is the time of the last line, less the
    moment from the commit to the line; payload and deliveries are not told.
    """
    table: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"status": "pending", "error": None, "owner": None, "claimed_at": None}
    )
    order = {"lifecycle.accepted": 0, "lifecycle.running": 1}
    for line in sorted(lines, key=lambda line: order.get(line["event"], 2)):
        if line["event"] in order or line["event"] in ENDS:
            row = table[line["lifecycle_id"]]
            row |= {name: line[name] for name in TOLD if name in line and name != "status"}
            row["status"] = (STARTS | ENDS).get(line["event"], row["status"])
    return table


async def audit(fleet: Fleet, client: LifecycleClient) -> None:
    """Assert the invariants of a fleet that has come to rest."""
    rows = await client.repository.list_lifecycles(limit=100_000)
    lines = await _lines(fleet, rows)
    _each_row_once(rows, fleet.history())
    assert replay(fleet.history(), lines, fleet.settings.max_attempts) == []
    killed = sum(daemon.process.returncode == -signal.SIGKILL for daemon in fleet.daemons)
    _one_line_a_transition(rows, lines, killed)
    table = rebuild(lines)
    for row in rows:
        assert table[row["id"]] == {name: value for name, value in row.items() if name in TOLD}, row["id"]
    running = [(row["host_uuid"], row["decky_name"]) for row in rows if row["status"] == "running"]
    assert len(running) == len(set(running))
    await _nothing_lies_open(fleet, client, [row for row in rows if row["status"] in OPEN])


async def unlocked(fleet: Fleet, *deckies: str) -> None:
    """Return when nobody holds their locks: whoever ends a row lets go of its lock after that."""
    locks = DeckyLocks.of(fleet.settings)
    async with asyncio.timeout(HANG_GUARD_S):
        while any(locks.holders(name, None) for name in deckies):
            await asyncio.sleep(0.01)


async def _lines(fleet: Fleet, rows: list[Lifecycle]) -> list[dict[str, Any]]:
    """All lines, once each row's first and last have come through the pipes; or what came in ten seconds."""
    accepted = {row["id"] for row in rows}
    ended = {row["id"] for row in rows if row["status"] not in OPEN}
    for _ in range(1000):
        lines = fleet.lines()
        if accepted <= _told(lines, {"lifecycle.accepted"}) and ended <= _told(lines, ENDS.keys()):
            break
        await asyncio.sleep(0.01)
    return lines


def _told(lines: list[dict[str, Any]], events: Set[str]) -> set[str]:
    """The rows that one of these events tells of."""
    return {line["lifecycle_id"] for line in lines if line["event"] in events}


def _each_row_once(rows: list[Lifecycle], history: list[tuple[str, str | None, str | None]]) -> None:
    """No operation ran twice, no row ended twice, no terminal row was touched: as the database saw it."""
    told: dict[str, list[str | None]] = defaultdict(list)
    for lifecycle_id, before, after in history:
        steps = told[lifecycle_id]
        assert before == (steps[-1] if steps else None), (lifecycle_id, steps, before)
        assert before in {None, *OPEN} or after is None, (lifecycle_id, steps, after)
        steps.append(after)
    assert all(steps.count("running") <= 1 for steps in told.values())
    for row in rows:
        assert told[row["id"]][-1] == row["status"], row["id"]


def _one_line_a_transition(rows: list[Lifecycle], lines: list[dict[str, Any]], killed: int) -> None:
    """Each killed process may have died between one line and its note of it: that line is told again."""
    told: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line["event"] in {"lifecycle.accepted", *STARTS, *ENDS}:
            told[line["lifecycle_id"]].append(line["event"])
    repeated = 0
    for row in rows:
        events = told[row["id"]]
        repeated += len(events) - len(set(events))
        assert "lifecycle.accepted" in events, row["id"]
        # Its worker may have been killed between the claim and the line; the sweep's line tells both.
        untold = "lifecycle.running" not in events and SWEPT & set(events)
        assert untold or events.count("lifecycle.running") == (row["claimed_at"] is not None), row["id"]
        assert len(ENDS.keys() & set(events)) == (row["status"] not in OPEN), row["id"]
    # The line of a row's end, and that of its retry.
    assert repeated <= 2 * killed


async def _nothing_lies_open(fleet: Fleet, client: LifecycleClient, rows: list[Lifecycle]) -> None:
    locks = DeckyLocks.of(fleet.settings)
    queue = Queue(fleet.settings.redis)
    try:
        await _held_or_rung(client, rows, locks, queue)
    finally:
        await queue.close()


async def _held_or_rung(
    client: LifecycleClient, rows: list[Lifecycle], locks: DeckyLocks, queue: Queue
) -> None:
    seen: set[str] = set()
    for row in sorted(rows, key=lambda row: row["id"]):
        decky = row["decky_name"]
        if row["status"] == "running":
            assert locks.holders(decky, row["host_uuid"]), row["id"]
        elif decky not in seen:
            # Whoever committed it may be about to ring, which counts one more delivery.
            async with asyncio.timeout(HANG_GUARD_S):
                while await _absent(await client.get(row["id"]), queue):
                    await asyncio.sleep(0.05)
        seen.add(decky)


async def _absent(row: Lifecycle, queue: Queue) -> bool:
    delivery = Delivery.latest(row)
    return row["status"] == "pending" and await queue.states([delivery]) == ["absent"]
