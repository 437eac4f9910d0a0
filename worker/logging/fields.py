"""What an event is, and its fields: type, unit and meaning of each, whichever event it stands in."""

from types import NoneType, UnionType
from typing import Final, NamedTuple, get_args


class Field(NamedTuple):
    """One field: the types of its values, its unit, and what it says."""

    kind: type | UnionType
    meaning: str
    unit: str = ""

    @property
    def types(self) -> str:
        """The types of its values in JSON, in words."""
        kinds = set(get_args(self.kind) or (self.kind,))
        if float in kinds:
            kinds.discard(int)
        names = [name for kind, name in _JSON_TYPES.items() if kind in kinds]
        return " or ".join([*names, "null"] if NoneType in kinds else names)


class Event(NamedTuple):
    """One kind of line.

    Attributes:
        level: the logging level.
        when: when it is written.
        advice: what an operator should do.
        fields: the names of its fields, always all there (null where not known), in the order of the line.
    """

    level: int
    when: str
    advice: str
    fields: tuple[str, ...]


_JSON_TYPES: Final = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "list of integers",
}

_Seconds = int | float

FIELDS: Final[dict[str, Field]] = {
    "lifecycle_id": Field(str, "id of the row"),
    "decky_name": Field(str, "the decky"),
    "operation": Field(str, "`deploy`, `mutate` or `teardown`"),
    "host_uuid": Field(str | None, "the host that the decky lives on; null for the master's own"),
    "attempt": Field(int, "1 for the first attempt"),
    "retry_of": Field(str | None, "id of the row that this one repeats"),
    "retry_id": Field(str | None, "id of the row that repeats this one"),
    "owner": Field(
        str | None, "one life of one worker: host/boot/pid/start/random/locks; null if never claimed"
    ),
    "started_at": Field(str, "when the attempt was accepted", "UTC, ISO 8601"),
    "claimed_at": Field(str | None, "when a worker claimed it; null if never", "UTC, ISO 8601"),
    "queue_wait_s": Field(_Seconds | None, "from acceptance to claim; null if never claimed", "seconds"),
    "duration_s": Field(
        _Seconds | None, "from claim to end, or of the sweep; null if never claimed", "seconds"
    ),
    "runtime": Field(str | None, "`compose`, `command` or `process`; null where the reaper closed the row"),
    "outcome": Field(str, "how it ended, as in the row"),
    "status": Field(str, "what the refused write would have made of the row"),
    "refused_error": Field(str | None, "the error that the refused write would have given the row"),
    "error": Field(str | None, "why it failed, as in the row"),
    "reason": Field(str, "why, in one line"),
    "task": Field(str, "which of the daemon's tasks"),
    "changed": Field(str, "names of settings that changed, empty for none"),
    "needs_restart": Field(str, "names of settings that differ and can't change while it runs"),
    "exit_status": Field(int, "of the process that ends"),
    "delivery": Field(int, "how often the row has been enqueued"),
    "job_id": Field(str, "the arq job"),
    "overdue_s": Field(_Seconds, "past the deadline", "seconds"),
    "line": Field(str, "at most 500 characters"),
    "pids": Field(list, "processes that were ended"),
    "redis": Field(str, "the queue's DSN without user and password"),
    "session": Field(str, "`own`: that this host is there; `observer`: that looks which others are"),
    "absent_s": Field(_Seconds, "how long no daemon of it was seen; 0 by an operator's word", "seconds"),
    "lost_s": Field(_Seconds, "from its loss to the news of its return", "seconds"),
    "down_s": Field(_Seconds, "how long it was away", "seconds"),
    "max_jobs": Field(int, "operations at a time"),
    "running": Field(int, "operations that run"),
    "pending": Field(int, "rows that wait"),
    "oldest_pending_s": Field(_Seconds, "age of the oldest row that waits; 0 if none does", "seconds"),
    "queue_up": Field(bool | None, "whether Redis answered the last sweep"),
    "database": Field(str, "the store, without user and password"),
    "pid": Field(int, "process id"),
    "interval_s": Field(_Seconds, "between two sweeps", "seconds"),
    "rows": Field(int, "open rows seen"),
    "failed": Field(int, "rows closed"),
    "retried": Field(int, "retries accepted"),
    "redelivered": Field(int, "rows enqueued again"),
    "ended": Field(int, "processes ended"),
    "pruned": Field(int, "old rows removed"),
    "trigger": Field(
        str, "what caused the sweep: `start`, `cron`, `backstop`, `death`, `absence`, `unit` or `command`"
    ),
    "listen": Field(str, "where the live page listens: ADDRESS:PORT, or unix:PATH"),
    "actions": Field(bool, "whether it may cancel, retry and tear down"),
    "action": Field(str, "`cancel`, `retry` or `teardown`"),
    "who": Field(str, "the name before the token in `web_tokens`"),
    "address": Field(str, "whence the connection came; `unix` for a unix socket"),
    "forwarded_for": Field(str | None, "whence it came to the proxy, as the request says; null without one"),
}
