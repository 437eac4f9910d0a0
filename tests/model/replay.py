"""Whether what really happened is a path of the model: the history and the log of a run, taken step by step.

The steps and their conditions are those of host.pml, by the same names. What only the kernel saw (locks,
children) is in no log; `tests.storm` has a witness for that.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

History = Iterable[tuple[str, str | None, str | None]]
"""Id, status before, status after: one for each commit that moved a row, in the order of the commits."""
Lines = Iterable[Mapping[str, Any]]
"""What daemons and masters logged."""

OPEN = {"pending", "running"}
# Who writes which end: the owner of the row, or whoever closes it for a dead one.
_BY_OWNER = {"lifecycle.succeeded", "lifecycle.failed", "lifecycle.interrupted", "lifecycle.timed_out"}
_ENDS = _BY_OWNER | {"lifecycle.swept", "lifecycle.cancelled", "lifecycle.expired", "lifecycle.lost"}
_RETRIED = {"swept", "interrupted", "timed_out", "lost"}
_MAX_ATTEMPTS = 2


def replay(history: History, lines: Lines, max_attempts: int = _MAX_ATTEMPTS) -> list[str]:
    """What is no step of the model; nothing, if the run is a path of it."""
    run = _Run(lines, max_attempts)
    for lifecycle_id, before, after in history:
        run.step(lifecycle_id, before, after)
    run.over()
    return run.wrong


class _Run:
    """The rows as they stand after the steps so far, and what the log says of them."""

    def __init__(self, lines: Lines, max_attempts: int) -> None:
        self.wrong: list[str] = []
        self._max_attempts = max_attempts
        self._row: dict[str, str] = {}
        self._open_of: dict[Any, set[str]] = defaultdict(set)
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._claims: dict[str, set[str]] = defaultdict(set)
        self._ends: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._survivors: dict[str, str] = {}
        for line in lines:
            lifecycle_id, event = line.get("lifecycle_id"), line["event"]
            if lifecycle_id is None:
                continue
            if "decky_name" in line and "attempt" in line:
                self._facts.setdefault(lifecycle_id, line)
            if event == "lifecycle.running":
                self._claims[lifecycle_id].add(line["owner"])
            if event == "lifecycle.survivors_ended":
                self._survivors[lifecycle_id] = line.get("timestamp", "")
            if event in _ENDS:
                self._ends[lifecycle_id].append(line)

    def step(self, lifecycle_id: str, before: str | None, after: str | None) -> None:
        """One commit."""
        if self._row.get(lifecycle_id) != before:
            self._no(
                lifecycle_id, f"it said {self._row.get(lifecycle_id)}, and went from {before} to {after}"
            )
        if before is None:
            self._accept(lifecycle_id)
        elif after == "running":
            self._claim(lifecycle_id, before)
        elif after is not None:
            self._end(lifecycle_id, before)
        if after is None:
            self._row.pop(lifecycle_id, None)
        else:
            self._row[lifecycle_id] = after
        open_rows = self._open_of[self._decky(lifecycle_id)]
        if after in OPEN:
            open_rows.add(lifecycle_id)
        else:
            open_rows.discard(lifecycle_id)

    def over(self) -> None:
        """The log and the history tell of the same run."""
        for lifecycle_id, lines in self._ends.items():
            status = self._row.get(lifecycle_id)
            for line in lines:
                wanted = "succeeded" if line["event"] == "lifecycle.succeeded" else "failed"
                if status not in {wanted, None}:
                    self._no(lifecycle_id, f"it says {status}, and {line['event']} was logged")

    def _accept(self, lifecycle_id: str) -> None:
        facts = self._facts.get(lifecycle_id, {})
        if (parent := facts.get("retry_of")) is None:
            return
        ends = self._ends.get(parent, [])
        if self._row.get(parent) in OPEN:
            self._no(lifecycle_id, "a retry of a row that has not ended")
        if facts["attempt"] > self._max_attempts:
            self._no(lifecycle_id, f"attempt {facts['attempt']}")
        if ends and not {line["outcome"] for line in ends} & _RETRIED:
            self._no(lifecycle_id, f"a retry of what ended as {ends[0]['outcome']}")
        if ends and {line["retry_id"] for line in ends} != {lifecycle_id}:
            self._no(lifecycle_id, f"its row says that {ends[0]['retry_id']} is its retry")

    def _claim(self, lifecycle_id: str, before: str | None) -> None:
        if before != "pending":
            self._no(lifecycle_id, f"claimed when it was {before}")
        if len(self._claims[lifecycle_id]) > 1:
            self._no(lifecycle_id, f"claimed by {sorted(self._claims[lifecycle_id])}")
        if (decky := self._decky(lifecycle_id)) is None:
            return
        for other in self._open_of[decky] - {lifecycle_id}:
            if self._row[other] == "running":
                self._no(lifecycle_id, f"claimed while {other} ran")
            if other < lifecycle_id:
                self._no(lifecycle_id, f"claimed before {other}")

    def _end(self, lifecycle_id: str, before: str | None) -> None:
        if before not in OPEN:
            self._no(lifecycle_id, "a terminal row changed")
        ends = self._ends[lifecycle_id]
        if len({line["event"] for line in ends}) > 1:
            self._no(lifecycle_id, f"ended as {sorted({line['event'] for line in ends})}")
        for line in ends:
            own = line["event"] in _BY_OWNER
            claims = self._claims[lifecycle_id]
            if own and before == "running" and claims and line["owner"] not in claims:
                self._no(lifecycle_id, f"claimed by {sorted(claims)}, ended by {line['owner']}")
            if self._survivors.get(lifecycle_id, "") > line.get("timestamp", "~"):  # a master logs none
                self._no(lifecycle_id, "its survivors were ended after it")

    def _decky(self, lifecycle_id: str) -> Any:
        facts = self._facts.get(lifecycle_id)
        return None if facts is None else (facts["decky_name"], facts.get("host_uuid"))

    def _no(self, lifecycle_id: str, why: str) -> None:
        self.wrong.append(f"{lifecycle_id}: {why}")
