"""What the store hands out and takes: one typed row, and the words that its columns hold."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, NotRequired, TypedDict, get_args

Operation = Literal["deploy", "mutate", "teardown"]
Status = Literal["pending", "running", "succeeded", "failed"]
Outcome = Literal[
    "succeeded", "failed", "timed_out", "cancelled", "interrupted", "swept", "expired", "lost"
]  # fmt: skip

OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
OPEN: Final[tuple[Status, ...]] = ("pending", "running")
TERMINAL: Final[tuple[Status, ...]] = ("succeeded", "failed")
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What an id is, of a row or of a host."""
DECKY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a decky's name is, as DECNET takes it."""

CANCELLED: Final = "cancelled by operator"
"""The error of a row that was cancelled."""

ANY_HOST: Final = "*"
"""In place of a host id: rows of every host. (None is a host: the master's own.)"""


def host_key(host_uuid: str | None) -> str:
    """How the store compares hosts: the master's own is one host too."""
    return host_uuid or ""


def is_retry(row: "Lifecycle", of: "Lifecycle") -> bool:
    """Whether a row repeats another, whose `retry_id` names it: anybody may have written that."""
    return row["retry_of"] == of["id"] and row["attempt"] > of["attempt"]


class Lifecycle(TypedDict):
    """One row, JSON-ready; times are ISO 8601 in aware UTC. What each column means: repo.models.tables."""

    id: str
    decky_name: str
    host_uuid: str | None
    operation: Operation
    status: Status
    outcome: Outcome | None
    error: str | None
    started_at: str
    updated_at: str
    completed_at: str | None
    payload: NotRequired[dict[str, Any] | None]  # not where a call says "without payload"
    owner: str | None
    claimed_at: str | None
    attempt: int
    retry_of: str | None
    retry_id: str | None
    deliveries: int
    enqueued_at: str | None
    cancel_requested_at: str | None


class Filter(TypedDict, total=False):
    """Which rows; what is missing, empty or None means any.

    statuses, outcomes: one of these.
    operation, decky_name: this one.
    host_uuid: this one; "" is the master's own.
    since: accepted then or later; aware.
    limit: at most so many; 50 if missing.
    """

    statuses: Sequence[Status]
    outcomes: Sequence[Outcome]
    operation: Operation | None
    decky_name: str | None
    host_uuid: str | None
    since: datetime | None
    limit: int


class StoreIdentity(NamedTuple):
    """Which store this is.

    Attributes:
        id: random, and made with the store.
        name: for people: its path, or its URL without its password.
    """

    id: str
    name: str


class Ending(NamedTuple):
    """What became of an attempt to end a row.

    Attributes:
        applied: whether this call ended the row; False if it was no longer as expected.
        outcome, error: as they were written; "cancelled" where a cancel had been accepted before.
        retry_id: id of the new pending row that repeats the attempt, if one was asked for.
        retry_at: when that row was accepted (its `started_at`).
        more: whether the decky has another open row; True if that was not looked at.
    """

    applied: bool
    outcome: Outcome | None = None
    error: str | None = None
    retry_id: str | None = None
    retry_at: str | None = None
    more: bool = True


class Deployed(NamedTuple):
    """What a decky runs: its last whole document, and which of its services are switched on.

    Attributes:
        document: the Compose document as it was deployed, with every service.
        services: names of the services in use, the base among them.
    """

    document: dict[str, Any]
    services: list[str]


class DeployedDecky(TypedDict):
    """What one decky runs now, and by which row; JSON-ready."""

    decky_name: str
    host_uuid: str | None
    services: list[str]
    deployed_at: str
    lifecycle_id: str


class Host(TypedDict):
    """One host, JSON-ready; times are ISO 8601 in aware UTC.

    host_uuid: which; None is the master's own.
    daemons: what its daemons say of themselves, one text a session; the host is present while there is one.
    has_role: whether `hosts add` made a database role for it.
    seen_at: when a daemon of it last opened its session; None if none ever did.
    absent_since: when it was first seen to be absent; None while it is present.
    lost_at: when it was taken for lost, if it is.
    """

    host_uuid: str | None
    present: bool
    daemons: list[str]
    has_role: bool
    seen_at: str | None
    absent_since: str | None
    lost_at: str | None


HostState = Literal["absent", "lost"]
"""Of a host of which no daemon has its session: that, or also written down as lost."""


class Sighting(NamedTuple):
    """What an observer knows of a host.

    Attributes:
        present: whether one of its daemons has its session.
        absent_for: seconds that it was seen to be absent, within the observer's session.
        lost: whether that is `lost_after` or longer, or somebody has said so since it was last there.
    """

    present: bool
    absent_for: float = 0.0
    lost: bool = False


class Returned(NamedTuple):
    """A host that had been lost and is back.

    Attributes:
        host_uuid: which; None is the master's own.
        lost_for: seconds, by the server's wall clock.
    """

    host_uuid: str | None
    lost_for: float


class Claim(NamedTuple):
    """A row that was claimed.

    Attributes:
        row: the whole row.
        deployed: what its decky was last brought to by a row that succeeded, if by any.
    """

    row: Lifecycle
    deployed: Deployed | None
