"""What a caller may say about a row, checked as the models say before the store is asked."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from repo.base import ANY_HOST, DECKY_NAME, ID, OPEN, OPERATIONS, OUTCOMES, TERMINAL
from repo.errors import InvalidLifecycle
from repo.lifecycle import host_key
from repo.models.times import to_text

ERROR_LENGTH = 2_000
ESCAPE = "/"
"""Before what LIKE would take for a wildcard."""

_CREATE = frozenset(
    {"id", "decky_name", "host_uuid", "operation", "status", "started_at"}
    | {"payload", "attempt", "retry_of", "deliveries", "enqueued_at"}
)
_UPDATE = frozenset({"status", "error", "started_at", "completed_at", "owner", "claimed_at"})
_NEW: Final[dict[str, Any]] = dict.fromkeys(sorted(_CREATE)) | {
    "status": "pending",
    "attempt": 1,
    "deliveries": 0,
}
_REQUIRED = ("decky_name", "operation")
_UNSTORABLE = re.compile(r"(?<!\\)(?:\\\\)*\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f]..)")
"""In JSON text: an escaped NUL, or an escaped surrogate without the other one."""


def accepted(data: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a new row; `id` is None where none is given.

    Raises:
        InvalidLifecycle: a field is missing, unknown or malformed; the message names it.
    """
    _known(data, _CREATE, "create")
    moment = now()
    row = _NEW | {"started_at": moment, "updated_at": moment}
    for name, value in data.items():
        if value is not None:
            row[name] = check(name, value)
    for name in _REQUIRED:
        if row[name] is None:
            check(name, None)
    if row["status"] not in OPEN:
        raise InvalidLifecycle(f"status {row['status']!r}: a new row is pending or running")
    return row


def changed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that an update sets, its two stamps among them.

    Raises:
        InvalidLifecycle: nothing to change, or a field that is unknown, malformed or out of place.
    """
    _known(fields, _UPDATE, "update")
    if not fields:
        raise InvalidLifecycle("no field to update")
    values = {
        name: value if value is None and name not in {"status", "started_at"} else check(name, value)
        for name, value in fields.items()
    }
    status = values.get("status")
    if values.get("completed_at") is not None and status not in TERMINAL:
        raise InvalidLifecycle("completed_at: only a status of succeeded or failed brings one")
    if values.get("error") is not None and status != "failed":
        raise InvalidLifecycle("error: only a status of failed brings one")
    values["updated_at"] = now()
    if status in TERMINAL:
        values["outcome"] = status
        if values.get("completed_at") is None:
            values["completed_at"] = values["updated_at"]
    return values


def check(name: str, value: object) -> Any:
    """A value of one column as the store takes it.

    Raises:
        InvalidLifecycle: the column can't hold it.
    """
    return _CHECKS[name](name, value)


def now() -> str:
    """The time as the store takes it."""
    return to_text(datetime.now(UTC))


def time(name: str, value: object) -> str:
    """The time as the store takes it, if it says in which zone it is."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidLifecycle(f"{name} {value!r}: a datetime with a time zone is needed")
    return to_text(value)


def filtered(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A filter as statements take it: what may be any is not there, and `most` always is.

    Args:
        wanted: a `Filter` or an `EndedFilter`; a `host_uuid` of None is the master's own host.

    Raises:
        InvalidLifecycle: a time without its zone.
    """
    values: dict[str, Any] = {"most": wanted.get("limit", 50)}
    if (host_uuid := wanted.get("host_uuid", ANY_HOST)) != ANY_HOST:
        values["host"] = host_key(host_uuid)
    if error := wanted.get("error"):
        values["error"] = re.sub(r"[%_/]", rf"{ESCAPE}\g<0>", error)
    for name in ("operation", "decky_name"):
        if value := wanted.get(name):
            values[name] = value
    for name in ("statuses", "outcomes"):
        if value := wanted.get(name):
            values[name] = json.dumps(list(value))
    for name in ("since", "until"):
        if (value := wanted.get(name)) is not None:
            values[name] = time(name, value)
    return values


def error_text(value: object) -> str:
    """An error as the store takes it: at most 2,000 characters, each of them writable as UTF-8."""
    return _text("error", value)[:ERROR_LENGTH]


def to_json(value: object, name: str) -> str:
    """Canonical JSON, so that equal requests are equal text."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidLifecycle(f"{name}: not JSON, {error}") from None
    if (found := _UNSTORABLE.search(text)) is not None:  # PostgreSQL's jsonb takes neither
        what = "a NUL character" if found[1] == "0000" else "half of a surrogate pair"
        raise InvalidLifecycle(f"{name}: text with {what} can't be stored")
    return text


def _known(given: Mapping[str, Any], known: frozenset[str], verb: str) -> None:
    if unknown := given.keys() - known:
        names = _listed(sorted(map(str, unknown)))
        raise InvalidLifecycle(f"{names}: no field that {verb} takes; it takes {_listed(sorted(known))}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidLifecycle(f"{name}: text is needed, not {type(value).__name__}")
    return value.encode("utf-8", "replace").decode().replace("\0", "?")


def _object(name: str, value: object) -> str:
    if not isinstance(value, Mapping):
        raise InvalidLifecycle(f"{name}: a dict is needed, not {type(value).__name__}")
    return to_json(value, name)


def _matching(pattern: str) -> Callable[[str, object], str]:
    shape = re.compile(pattern)

    def matching(name: str, value: object) -> str:
        if not isinstance(value, str) or not shape.fullmatch(value):
            raise InvalidLifecycle(f"{name} {value!r}: text that matches {pattern} is needed")
        return value

    return matching


def _one_of(words: tuple[str, ...]) -> Callable[[str, object], str]:
    def one_of(name: str, value: object) -> str:
        if value not in words:
            raise InvalidLifecycle(f"{name} {value!r}: one of {_listed(words)} is needed")
        return str(value)

    return one_of


def _from(least: int) -> Callable[[str, object], int]:
    def count(name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 31:
            raise InvalidLifecycle(f"{name} {value!r}: a number from {least} is needed")
        return value

    return count


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


_CHECKS: Final[dict[str, Callable[[str, object], Any]]] = {
    **dict.fromkeys(("id", "host_uuid", "retry_of"), _matching(ID.pattern)),
    "decky_name": _matching(DECKY_NAME.pattern),
    "operation": _one_of(OPERATIONS),
    "status": _one_of(OPEN + TERMINAL),
    "outcome": _one_of(OUTCOMES),
    "error": lambda _, value: error_text(value),
    **dict.fromkeys(("started_at", "updated_at", "completed_at", "claimed_at", "enqueued_at"), time),
    "cancel_requested_at": time,
    "payload": _object,
    **dict.fromkeys(("owner", "retry_id"), _text),
    "attempt": _from(1),
    "deliveries": _from(0),
}
"""As the annotations of the table say; here again, since the table takes 0.3 s to import."""
