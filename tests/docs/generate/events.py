"""The event catalogue for people: `python -m tests.docs.generate.events > docs/events.md`."""

import logging
import sys
from typing import Final

from worker.logging.events import EVENTS
from worker.logging.fields import FIELDS

_INTRODUCTION: Final = """\
# Event catalogue

Made by `python -m tests.docs.generate.events > docs/events.md`.

A line is one JSON object in ASCII: `timestamp` (UTC, ISO 8601, microseconds), `level`, `event`, then the
event's fields in the order below, all of them, null where not known; then `exception` (a traceback) where
there is one. What libraries log stands in the same stream, with `logger` behind their text as `event`. No
text is longer than 4,000 characters, so that the journal never splits a line.

Each operation that ends has exactly one line, `lifecycle.<outcome>`: `.succeeded`, `.failed`, `.timed_out`,
`.cancelled`, `.interrupted`, `.swept`, `.expired` or `.lost`, with `queue_wait_s`, `duration_s`, `runtime`
and `attempt`, and this line alone tells the whole row. The daemons' lines rebuild every row that a worker
claimed or that the reaper closed. Rows that still wait, or that were cancelled while they waited, are told by
who did that: the master's own log, or for the command the system's log (`journalctl -t decnet-command`). A
line is written right after its commit; an end that a killed process could not log any more is logged by the
reaper's next sweep.

No line holds a document, or a password of ours. `error`, and `line` at level debug, repeat what Docker
Compose and the services print: values of a document's variables whose names look like secrets (`PASSWORD`,
`TOKEN`, ...) are masked in them, in the row too; what else a service prints is its own affair.
"""


def markdown() -> str:
    """The catalogue for people: docs/events.md."""
    lines = [_INTRODUCTION, "| event | level | when | what to do | fields |", "|---|---|---|---|---|"]
    for name, event in EVENTS.items():
        level = logging.getLevelName(event.level).lower()
        fields = ", ".join(f"`{field}`" for field in event.fields)
        lines.append(f"| `{name}` | {level} | {event.when} | {event.advice} | {fields} |")
    lines += ["", "| field | type | unit | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {f.types} | {f.unit} | {f.meaning} |" for name, f in FIELDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
