"""What a timeline shows, made from rows: a lane per decky, a bar per attempt. Pure; no drawing."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from repo.base import Lifecycle
from worker.logging.console import printable

_SWEPT = {"swept", "expired", "lost"}


class Bar(NamedTuple):
    """One attempt.

    Attributes:
        id, operation, status, attempt: of its row.
        accepted: when it was asked for.
        claimed: when it was started, or None.
        end: when it ended; now, if it is open.
        swept: whether the reaper closed it.
    """

    id: str
    operation: str
    status: str
    attempt: int
    accepted: datetime
    claimed: datetime | None
    end: datetime
    swept: bool


class Lane(NamedTuple):
    """One decky on one host, and its attempts, oldest first."""

    name: str
    bars: list[Bar]


def was_swept(row: Lifecycle) -> bool:
    """Whether the reaper closed this row. (A time-out is the same row whoever ended it.)"""
    return row["outcome"] in _SWEPT


def lanes_of(rows: Sequence[Lifecycle], now: datetime) -> list[Lane]:
    """A lane for each decky, by name.

    Args:
        rows: from the store, in any order.
        now: aware; where the bars of open rows end, and the zone of all times.
    """
    deckies: dict[tuple[str, str], list[Lifecycle]] = {}
    for row in sorted(rows, key=lambda row: str(row["id"])):
        deckies.setdefault((row["decky_name"], row["host_uuid"] or ""), []).append(row)
    return [
        Lane(printable(f"{name} @ {host}" if host else name), [_bar(row, now) for row in deckies[name, host]])
        for name, host in sorted(deckies)
    ]


def _bar(row: Lifecycle, now: datetime) -> Bar:
    def moment(text: str | None) -> datetime | None:
        return None if text is None else datetime.fromisoformat(text).astimezone(now.tzinfo)

    accepted, claimed = moment(row["started_at"]) or now, moment(row["claimed_at"])
    end = max(moment(row["completed_at"]) or now, claimed or accepted)
    return Bar(
        row["id"], row["operation"], row["status"], row["attempt"], accepted, claimed, end, was_swept(row)
    )
