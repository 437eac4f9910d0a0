"""The page of the fleet: whole at first, then what has changed since."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from reaper.web.selection import Selection
from reaper.web.watcher import Figures, Watcher
from repo.base import Lifecycle
from repo.errors import StoreError

SHOWN: Final = 200
"""Rows of a list that are shown; how many more there are is shown too."""
_LOOK_AGAIN: Final = 10
"""Looks after which what has ended is asked for once more, whether or not an end was noticed."""
_PATIENCE_S: Final = 5.0
"""Seconds for which a row that waits needs no explanation."""

View = dict[str, Any]


async def overview(
    watcher: Watcher, selection: Selection, *, operation_timeout: float
) -> AsyncIterator[dict[str, Any]]:
    """What the page shows, for ever: the first is whole, each later one has what has changed, and the time.

    Args:
        watcher: what goes on.
        selection: which rows.
        operation_timeout: seconds that an operation may take.
    """
    sent: dict[str, Any] = {}
    ended: list[Lifecycle] = []
    seen, age = -1, 0
    await watcher.look()
    while True:
        if selection.wants_ended and watcher.store.up and (seen != watcher.ends or age >= _LOOK_AGAIN):
            seen, age = watcher.ends, 0
            try:
                wanted = selection.ended(datetime.now(UTC), SHOWN)
                ended = await watcher.repository.list_ended(**wanted)
            except StoreError:
                seen = -1
        age += 1
        yield _changed(sent, _state(watcher, selection, ended, operation_timeout))
        with contextlib.suppress(StoreError):
            await watcher.figures()  # sent with the next; the first must not wait for them
        if not await watcher.news():
            return


def _state(
    watcher: Watcher, selection: Selection, ended: Sequence[Lifecycle], operation_timeout: float
) -> dict[str, Any]:
    wanted = [row for row in watcher.open_rows if selection.takes(row)]
    lists = {state: [row for row in wanted if row["status"] == state] for state in ("running", "pending")}
    reasons = wait_reasons(watcher)
    views: list[View] = []
    for row in (*lists["running"][:SHOWN], *lists["pending"][:SHOWN]):
        lines = watcher.lines(row["id"])
        views.append(
            view(row, operation_timeout)
            | {"line": lines[-1][1] if lines else "", "why": reasons.get(row["id"], "")}
        )
    views += [view(row, operation_timeout) for row in ended]
    figures = watcher.counted
    return {
        "store": watcher.store._asdict(),
        "queue": watcher.queue_health._asdict(),
        "hosts": hosts(watcher.open_rows, figures, watcher.present),
        "hours": [hour._asdict() for hour in figures.hours] if figures else None,
        "total": {state: len(rows) for state, rows in lists.items()} | {"ended": len(ended)},
        "running": [row["id"] for row in lists["running"][:SHOWN]],
        "pending": [row["id"] for row in lists["pending"][:SHOWN]],
        "ended": [row["id"] for row in ended],
        "rows": {each["id"]: each for each in views},
    }


def _changed(sent: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """What is to be sent of a state, to whom this was sent before."""
    rows = {key: row for key, row in state["rows"].items() if sent.get("rows", {}).get(key) != row}
    news = {key: value for key, value in state.items() if key != "rows" and sent.get(key) != value}
    sent |= state
    return {"now": _now(), **news} | ({"rows": [*rows.values()]} if rows else {})


def view(row: Lifecycle, operation_timeout: float) -> View:
    """A row as the page has it: without its request, which may hold secrets."""
    deadline = None
    if row["status"] == "running" and row["claimed_at"] is not None:
        deadline = (
            datetime.fromisoformat(row["claimed_at"]) + timedelta(seconds=operation_timeout)
        ).isoformat()
    return {
        "id": row["id"],
        "decky": row["decky_name"],
        "host": row["host_uuid"],
        "operation": row["operation"],
        "status": row["status"],
        "outcome": row["outcome"],
        "error": row["error"],
        "accepted": row["started_at"],
        "claimed": row["claimed_at"],
        "ended": row["completed_at"],
        "deadline": deadline,
        "attempt": row["attempt"],
        "retry_of": row["retry_of"],
        "retry_id": row["retry_id"],
        "cancelling": row["cancel_requested_at"] is not None and row["completed_at"] is None,
    }


def wait_reasons(watcher: Watcher) -> dict[str, str]:
    """Why each pending row is not running yet, as `waits` has it, now."""
    return waits(watcher.open_rows, datetime.now(UTC), queue_up=watcher.queue_health.up is not False)


def waits(open_rows: Iterable[Lifecycle], now: datetime, *, queue_up: bool = True) -> dict[str, str]:
    """Why each pending row is not running yet, in a few words; by id.

    Args:
        open_rows: every open row, in the order of ids.
        now: aware.
        queue_up: whether Redis can be used.
    """
    reasons: dict[str, str] = {}
    first: dict[tuple[str | None, str], Lifecycle] = {}
    behind: Counter[tuple[str | None, str]] = Counter()
    before: Counter[tuple[str | None, str]] = Counter()
    for row in open_rows:
        host, decky = row["host_uuid"], (row["host_uuid"], row["decky_name"])
        if row["status"] == "pending":
            running, pending = before[host, "running"], before[host, "pending"]
            if (ahead := first.get(decky)) is not None:
                more = f" and {behind[decky] - 1} more" if behind[decky] > 1 else ""
                reasons[row["id"]] = f"for its decky's {ahead['status']} {ahead['operation']}{more}"
            elif running or pending:
                reasons[row["id"]] = f"for a free worker; before it {running} running, {pending} pending"
            elif (now - datetime.fromisoformat(row["started_at"])).total_seconds() > _PATIENCE_S:
                reasons[row["id"]] = "no worker of its host takes it; does one run?"
            elif not queue_up:
                reasons[row["id"]] = "a worker finds it in the store, since Redis is away"
        first.setdefault(decky, row)
        behind[decky] += 1
        before[host, row["status"]] += 1
    return reasons


def hosts(
    open_rows: Iterable[Lifecycle],
    figures: Figures | None,
    present: Mapping[str | None, bool] | None,
) -> list[dict[str, Any]]:
    """Every host that has an open row or runs a decky, the master's own first.

    Args:
        open_rows: every open row.
        figures: what the deckies run.
        present: what the store says of hosts; None where it can't know, as on one machine.
    """
    rows = Counter((row["host_uuid"], row["status"]) for row in open_rows)
    deckies = figures.deckies if figures else Counter[str | None]()
    known = {host for host, _ in rows} | deckies.keys() | (present or {}).keys()
    return [
        {
            "host": host,
            "present": (present or {}).get(host),
            "running": rows[host, "running"],
            "pending": rows[host, "pending"],
            "deckies": deckies[host],
        }
        for host in sorted(known, key=lambda host: host or "")
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat()
