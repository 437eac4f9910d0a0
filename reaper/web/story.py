"""The page of a row: what happened to it in order, what was asked for, what stands around it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import yaml

from reaper.web.overview import View, view, wait_reasons
from reaper.web.watcher import Watcher
from repo.base import OPEN, Lifecycle
from repo.errors import StoreError
from worker.documents.masking import masked
from worker.liveness.owner import Owner

_AROUND: Final = 5


async def story(
    watcher: Watcher, lifecycle_id: str, *, operation_timeout: float, may_act: bool
) -> AsyncIterator[dict[str, Any]]:
    """What the page of a row shows, for ever: whole, each time that it has changed; null for no such row."""
    sent: Any = ()
    while True:
        try:
            found = await _story(watcher, lifecycle_id, operation_timeout)
            found = found and found | {"actions": _actions(found["row"]) if may_act else []}
        except StoreError:
            found = sent
        health = {"store": watcher.store._asdict(), "queue": watcher.queue_health._asdict()}
        news = {"now": datetime.now().astimezone().isoformat(), **health}
        yield news if found == sent else news | {"story": found}
        sent = found
        if not await watcher.news():
            return


async def _story(watcher: Watcher, lifecycle_id: str, operation_timeout: float) -> dict[str, Any] | None:
    rows = await watcher.repository.get_lifecycle_by_ids([lifecycle_id])
    if not rows:
        return None
    row, payload = rows[0], rows[0].get("payload")
    around, deployed = await asyncio.gather(
        watcher.repository.list_around(row, _AROUND),
        watcher.repository.list_deployed(host_uuid=row["host_uuid"], decky_name=row["decky_name"]),
    )
    lines = watcher.lines(row["id"])
    waiting = wait_reasons(watcher) if row["status"] == "pending" else {}
    return {
        "row": view(row, operation_timeout)
        | {"line": lines[-1][1] if lines else "", "why": waiting.get(row["id"], "")},
        "steps": steps(row, around, lines),
        "request": None
        if payload is None
        else yaml.safe_dump(masked(payload), sort_keys=False, allow_unicode=True),
        "around": [view(each, operation_timeout) | {"services": _services(each)} for each in around],
        "runs": deployed[0]["services"] if deployed else [],
    }


def steps(row: Lifecycle, around: list[Lifecycle], lines: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What happened to a row, in order, each with the seconds since the step before.

    Args:
        row: the row.
        around: rows of its decky, among which an operator's retry of it may be.
        lines: those of its runtime, and when they were seen.
    """
    again = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
    found: list[tuple[str, str, str, str | None]] = [
        (row["started_at"], "accepted", f"{row['operation']}{again}", row["retry_of"])
    ]
    if row["enqueued_at"] is not None:
        times = f"{row['deliveries']} times, the last one now" if row["deliveries"] > 1 else ""
        found.append((row["enqueued_at"], "enqueued", times, None))
    if row["claimed_at"] is not None:
        owner = Owner.parse(row["owner"] or "")
        found.append((row["claimed_at"], "claimed", f"by worker {owner.pid}" if owner else "", None))
    ended = row["completed_at"]  # a line may be seen after it, and was printed before
    found += [(min(at, ended or at, key=datetime.fromisoformat), "output", line, None) for at, line in lines]
    if row["cancel_requested_at"] is not None:
        found.append((row["cancel_requested_at"], "cancel asked for", "", None))
    if ended is not None:
        found.append((ended, row["outcome"] or row["status"], row["error"] or "", row["retry_id"]))
    found += [
        (each["started_at"], "asked for again", each["operation"], each["id"])
        for each in around
        if each["retry_of"] == row["id"] and each["id"] != row["retry_id"]
    ]
    found.sort(key=lambda step: datetime.fromisoformat(step[0]))
    dated: list[View] = []
    for at, what, text, other in found:
        after = (
            datetime.fromisoformat(at) - datetime.fromisoformat(dated[-1]["at"] if dated else at)
        ).total_seconds()
        dated.append({"at": at, "what": what, "text": text, "row": other, "after": after})
    return dated


def _actions(row: View) -> list[str]:
    """What can be done about a row, as it is now."""
    return ["cancel" if row["status"] in OPEN else "retry", "teardown"]


def _services(row: Lifecycle) -> list[str]:
    """The services that a request names."""
    payload = row.get("payload") or {}
    compose = payload.get("compose")
    named = payload.get("services") or (compose.get("services") if isinstance(compose, dict) else None)
    return [str(name) for name in named] if isinstance(named, list | dict) else []
