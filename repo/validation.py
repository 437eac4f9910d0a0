"""What a caller may say about a row, checked before the store is asked."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from repo.base import OPEN, OPERATIONS, TERMINAL
from repo.errors import InvalidLifecycle
from repo.ids import new_id
from repo.models import to_text

ERROR_LENGTH = 2_000

_STATUSES = ("pending", "running", *TERMINAL)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DECKY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CREATE = frozenset(
    {"id", "decky_name", "host_uuid", "operation", "status", "started_at"}
    | {"payload", "attempt", "retry_of", "deliveries", "enqueued_at"}
)
_UPDATE = frozenset({"status", "error", "started_at", "completed_at", "owner", "claimed_at"})


def accepted(data: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a new pending row.

    Raises:
        InvalidLifecycle: a field is missing, unknown or malformed; the message names it.
    """
    _known(data, _CREATE, "create")
    moment = now()
    status = data.get("status", "pending")
    if status not in OPEN:
        raise InvalidLifecycle(f"status {status!r}: a new row is pending or running, or has none given")
    payload = data.get("payload")
    if payload is not None and not isinstance(payload, Mapping):
        raise InvalidLifecycle(f"payload: a dict is needed, not {type(payload).__name__}")
    started_at, enqueued_at = data.get("started_at"), data.get("enqueued_at")
    return {
        "id": new_id() if data.get("id") is None else _matching(_ID, "id", data["id"]),
        "decky_name": _matching(_DECKY_NAME, "decky_name", data.get("decky_name")),
        "host_uuid": _optional(_ID, "host_uuid", data.get("host_uuid")),
        "operation": operation(data.get("operation")),
        "status": status,
        "started_at": moment if started_at is None else time("started_at", started_at),
        "updated_at": moment,
        "payload": None if payload is None else to_json(payload, "payload"),
        "attempt": _count("attempt", data.get("attempt", 1), least=1),
        "retry_of": _optional(_ID, "retry_of", data.get("retry_of")),
        "deliveries": _count("deliveries", data.get("deliveries", 0), least=0),
        "enqueued_at": None if enqueued_at is None else time("enqueued_at", enqueued_at),
    }


def changed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that an update sets, its two stamps among them.

    Raises:
        InvalidLifecycle: nothing to change, or a field that is unknown, malformed or out of place.
    """
    _known(fields, _UPDATE, "update")
    if not fields:
        raise InvalidLifecycle("no field to update")
    values = dict(fields)
    status = values.get("status")
    if "status" in values and status not in _STATUSES:
        raise InvalidLifecycle(f"status {status!r}: one of {_listed(_STATUSES)} is needed")
    for name in ("started_at", "completed_at", "claimed_at"):
        if values.get(name) is not None:
            values[name] = time(name, values[name])
    if "started_at" in values and values["started_at"] is None:
        raise InvalidLifecycle("started_at: every row has one")
    if values.get("owner") is not None and not isinstance(values["owner"], str):
        raise InvalidLifecycle(f"owner: text is needed, not {type(values['owner']).__name__}")
    if values.get("completed_at") is not None and status not in TERMINAL:
        raise InvalidLifecycle("completed_at: only a status of succeeded or failed brings one")
    if values.get("error") is not None:
        if status != "failed":
            raise InvalidLifecycle("error: only a status of failed brings one")
        values["error"] = error_text(values["error"])
    if status in TERMINAL:
        values["outcome"] = status
    values["updated_at"] = now()
    if status in TERMINAL and values.get("completed_at") is None:
        values["completed_at"] = values["updated_at"]
    return values


def operation(value: object) -> str:
    """The operation, if it is one."""
    if value not in OPERATIONS:
        raise InvalidLifecycle(f"operation {value!r}: one of {_listed(OPERATIONS)} is needed")
    return str(value)


def time(name: str, value: object) -> str:
    """The time as the store takes it, if it says in which zone it is."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidLifecycle(f"{name} {value!r}: a datetime with a time zone is needed")
    return to_text(value)


def now() -> str:
    """The time as the store takes it."""
    return to_text(datetime.now(UTC))


def error_text(value: object) -> str:
    """An error as the store takes it: at most 2,000 characters, each of them writable as UTF-8."""
    if not isinstance(value, str):
        raise InvalidLifecycle(f"error: text is needed, not {type(value).__name__}")
    return value[:ERROR_LENGTH].encode("utf-8", "replace").decode()


def to_json(value: object, name: str) -> str:
    """Canonical JSON, so that equal requests are equal text."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidLifecycle(f"{name}: not JSON, {error}") from None


def _known(given: Mapping[str, Any], known: frozenset[str], verb: str) -> None:
    if unknown := given.keys() - known:
        names = _listed(sorted(map(str, unknown)))
        raise InvalidLifecycle(f"{names}: no field that {verb} takes; it takes {_listed(sorted(known))}")


def _matching(shape: re.Pattern[str], name: str, value: object) -> str:
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise InvalidLifecycle(f"{name} {value!r}: text that matches {shape.pattern} is needed")
    return value


def _optional(shape: re.Pattern[str], name: str, value: object) -> str | None:
    return None if value is None else _matching(shape, name, value)


def _count(name: str, value: object, least: int) -> int:
    if not isinstance(value, int) or not least <= value < 1 << 31:
        raise InvalidLifecycle(f"{name} {value!r}: a number from {least} is needed")
    return value


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
