"""A log line as a person reads it: time, event, decky, what matters, in aligned columns and few colours."""

import re
import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from worker.clock import exact_span
from worker.liveness.owner import Owner

Line = Mapping[str, Any]

_EVENT_WIDTH: Final = 18
_NARROW: Final = 72
"""Columns below which events are not padded to the longest of the usual ones, but to `succeeded`."""
_DECKY_WIDTH: Final = 9
_INDENT: Final = " " * 13
_ESCAPES: Final = re.compile(r"\x1b\[\d+m")
_RED, _YELLOW, _GREEN, _CYAN, _DIM = 31, 33, 32, 36, 2
_BY_LEVEL: Final = {"error": _RED, "critical": _RED, "warning": _YELLOW, "debug": _DIM}
_BY_EVENT: Final = {"lifecycle.succeeded": _GREEN, "queue.recovered": _GREEN, "lifecycle.running": _CYAN}

_BY_WORKER: Final = {"lifecycle.running", "worker.stopping", "worker.stopped"}

# Told in words, told by the event's name, or of use to programs only.
_NOT_AS_PAIRS: Final = {
    *("timestamp", "level", "event", "logger", "lifecycle_id", "decky_name", "operation", "attempt"),
    *("retry_of", "retry_id", "owner", "started_at", "claimed_at", "runtime", "outcome", "queue_wait_s"),
    *("duration_s", "error", "reason", "line", "exception"),
}


class ConsoleLine:
    """Renders lines for a terminal.

    Args:
        colours: whether the terminal has them.
        width: columns; a reason that doesn't fit goes below its line. 0: never.
    """

    def __init__(self, *, colours: bool, width: int = 0) -> None:
        self._colours = colours
        self._width = width
        self._event_width = _EVENT_WIDTH if not width or width >= _NARROW else len("succeeded")

    def __call__(self, logger: object, method: str, line: Line) -> str:
        """A structlog processor: the last of its chain."""
        event = str(line.get("event", ""))
        # A library's text stands where our own events have their fields.
        name, text = (str(line["logger"]), event) if "logger" in line else (event, "")
        colour = _BY_LEVEL.get(str(line.get("level")), _BY_EVENT.get(event, 0))
        shown = self._paint(f"{printable(name.removeprefix('lifecycle.')):<{self._event_width}}", colour)
        head = " ".join(filter(None, [self._paint(clock(line), _DIM), shown, self._about(line)]))
        why = str(line.get("error") or line.get("reason") or line.get("line") or "")
        below: list[str] = []
        for part, paint in ((", ".join(self._facts(line)), 0), (text, 0), (why, colour)):
            if not below and self._fits(f"{head}: {printable(part)}"):
                joint = ": " if part is why and part and not head.endswith(" ") else " "
                head = f"{head}{joint}{self._paint(printable(part), paint)}" if part else head
            else:
                below += self._below(part, paint)
        return "\n".join([head.rstrip(), *below, *self._below(str(line.get("exception", "")), 0)])

    def _fits(self, text: str) -> bool:
        return not self._width or len(_ESCAPES.sub("", text)) <= self._width

    def _below(self, text: str, colour: int) -> list[str]:
        lines = [
            part
            for whole in map(printable, text.splitlines())
            for part in (textwrap.wrap(whole, self._width - len(_INDENT)) if self._width else [whole])
        ]
        return [_INDENT + self._paint(line, colour) for line in lines]

    def _about(self, line: Line) -> str:
        if "lifecycle_id" not in line:
            return ""
        name = printable(str(line.get("decky_name") or ""))
        operation = printable(str(line.get("operation") or ""))
        return f"{self._paint(tail(line['lifecycle_id']), _DIM)} {name:<{_DECKY_WIDTH}} {operation}".rstrip()

    def _facts(self, line: Line) -> list[str]:
        facts = []
        attempt = line.get("attempt")
        if isinstance(attempt, int) and attempt > 1:
            facts.append(f"try {attempt}")
        if line.get("event") == "lifecycle.running":
            facts.append(f"waited {_span(line.get('queue_wait_s'))}")
        elif line.get("duration_s") is not None:
            facts.append(f"took {_span(line['duration_s'])}")
        if line.get("retry_id"):
            facts.append(f"retried as {tail(line['retry_id'])}")
        if line.get("retry_of") and line.get("event") == "lifecycle.accepted":
            facts.append(f"repeats {tail(line['retry_of'])}")
        if line.get("event") in _BY_WORKER and (owner := Owner.parse(str(line.get("owner")))) is not None:
            facts.append(f"pid {owner.pid}")
        idle = (None, 0) if line.get("event") == "reaper.swept" else (None,)
        pairs = {key: value for key, value in line.items() if key not in _NOT_AS_PAIRS}
        reason = str(line.get("reason", ""))
        return facts + [
            printable(f"{key} {value}")
            for key, value in pairs.items()
            if isinstance(value, list) or (value not in idle and str(value) not in reason)
        ]

    def _paint(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour and text else text


def tail(lifecycle_id: object) -> str:
    """The end of an id, its random part: enough to tell rows apart, and what `logs` takes for an id."""
    return printable(str(lifecycle_id))[-8:]


def clock(line: Line) -> str:
    """The local time of day of a line, with milliseconds."""
    moment = when(line)
    return "--:--:--.---" if moment is None else moment.strftime("%H:%M:%S.%f")[:12]


def when(line: Line) -> datetime | None:
    """The local time of a line; None where it has none."""
    try:
        return datetime.fromisoformat(str(line.get("timestamp"))).astimezone()
    except (ValueError, OverflowError):
        return None


def printable(text: str) -> str:
    """One line that can't steer a terminal."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _span(seconds: object) -> str:
    return exact_span(seconds) if isinstance(seconds, int | float) else "?"
