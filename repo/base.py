"""The contract of the store: what every repository answers, whatever database is behind it.

One row is one attempt of one operation on one decky. A row moves

    pending -> running -> succeeded | failed        (pending -> succeeded | failed too)

and nothing leaves a terminal row. Rows come back as plain JSON-ready dicts whose times are ISO 8601
strings in aware UTC. Every write has been committed, durably, when its call returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

Row = dict[str, Any]
Operation = Literal["deploy", "mutate"]
Status = Literal["pending", "running", "succeeded", "failed"]

OPERATIONS: tuple[Operation, ...] = ("deploy", "mutate")
OPEN: tuple[Status, ...] = ("pending", "running")
TERMINAL: tuple[Status, ...] = ("succeeded", "failed")


class Ending(NamedTuple):
    """What became of an attempt to end a row.

    Attributes:
        applied: whether this call ended the row; False if it was no longer as expected.
        retry_id: id of the new pending row that repeats the attempt, if one was asked for.
        retry_at: when that row was accepted (its `started_at`).
        more: whether the decky has another open row; True if that was not looked at.
    """

    applied: bool
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


class Claim(NamedTuple):
    """A row that was claimed.

    Attributes:
        row: the whole row.
        deployed: what its decky was last brought to by a row that succeeded, if by any.
    """

    row: Row
    deployed: Deployed | None


class BaseRepository(ABC):
    """The store of lifecycles. Use as an async context manager, or call `initialize` and `close`."""

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def initialize(self) -> None:
        """Open the store and bring its schema up; adopts a file that DECNET made.

        Raises:
            StoreUnusable, SchemaNewer, StoreBusy, StoreFull: with what to do about it.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the store. Forgetting this costs nothing: no hang, no warning, no lost row."""

    @abstractmethod
    async def create_lifecycle(self, data: Mapping[str, Any]) -> str:
        """Accept one attempt: a new `pending` row.

        Args:
            data: `decky_name` and `operation`; optionally `id`, `host_uuid`, `payload` (JSON-ready dict),
                `started_at` (aware datetime, default now), `status` (only "pending"), `attempt`, `retry_of`,
                `deliveries` and `enqueued_at` (for who rings right after).

        Returns:
            The id: the given one, or a new UUID version 7.

        Raises:
            InvalidLifecycle: a field is missing, unknown or malformed.
            LifecycleExists: the given id is taken.
        """

    @abstractmethod
    async def submit_lifecycle(self, data: Mapping[str, Any]) -> tuple[str, bool]:
        """Accept one attempt, unless the decky's newest open row asks for the same thing.

        "The same" is the same operation with the same payload. Only the newest open row counts: after
        A and B, a second A is a new wish, since B would otherwise have the last word.

        Returns:
            The id, and whether a row was created for it.
        """

    @abstractmethod
    async def update_lifecycle(self, lifecycle_id: str, fields: Mapping[str, Any]) -> None:
        """Change an open row; stamps `updated_at`, and `completed_at` with a terminal status unless given.

        Args:
            lifecycle_id: the row.
            fields: any of `status`, `error`, `started_at`, `completed_at`, `owner`, `claimed_at`.

        Raises:
            LifecycleNotFound, InvalidLifecycle, TransitionRefused, LifecycleClosed, DeckyBusy: nothing
                changed.
        """

    @abstractmethod
    async def claim_lifecycle(self, lifecycle_id: str, owner: str) -> Claim | None:
        """Move a row from pending to running for `owner`, if its turn has come.

        Its turn has come when no older open row (by id) of the same decky on the same host is there.

        Returns:
            The row as claimed, or None when it isn't pending or must wait.
        """

    @abstractmethod
    async def end_lifecycle(
        self,
        lifecycle_id: str,
        *,
        status: Literal["succeeded", "failed"],
        expect: Literal["pending", "running"] = "running",
        owner: str | None = None,
        error: str | None = None,
        deployed: Deployed | None = None,
        retry: bool = False,
    ) -> Ending:
        """End a row, if it still is what the caller believes it to be. All of it is one transaction.

        Args:
            lifecycle_id: the row.
            status: how it ended.
            expect: the state that the row must be in.
            owner: the owner that a running row must have (a null owner in the row matches None).
            error: why it failed (cut to 2,000 characters); only with "failed".
            deployed: what the decky runs now; recorded with the row's end.
            retry: also accept the same request again as a new pending row (`retry_of`, `attempt` + 1). Its
                id sorts right behind the ended row's, so that it runs before what was accepted later.

        Returns:
            Whether it was applied, and the id of the retry.

        Raises:
            LifecycleNotFound: no such row.
        """

    @abstractmethod
    async def request_cancel(self, lifecycle_id: str) -> Status:
        """Cancel: closes a pending row as failed ("cancelled by operator"), marks a running one.

        Returns:
            The status after it: "failed", or "running" when the owner has been asked to stop.

        Raises:
            LifecycleNotFound, LifecycleClosed.
        """

    @abstractmethod
    async def find_cancelled(self, owner: str) -> list[str]:
        """Ids of this owner's running rows that somebody asked to cancel."""

    @abstractmethod
    async def record_delivery(self, lifecycle_id: str, deliveries: int) -> bool:
        """Count one more ring of a pending row, if `deliveries` is still its count; stamps `enqueued_at`."""

    @abstractmethod
    async def get_lifecycle(self, lifecycle_id: str) -> Row | None:
        """One row, without payload; None if there is no such row."""

    @abstractmethod
    async def get_lifecycle_by_ids(self, ids: Iterable[str]) -> list[Row]:
        """Rows by id, payload included, oldest first; unknown ids are omitted; any number of ids."""

    @abstractmethod
    async def find_open_lifecycle(
        self, decky_name: str, operation: str, host_uuid: str | None = None
    ) -> Row | None:
        """The newest open row of this decky and operation; no host given means any host."""

    @abstractmethod
    async def find_next_lifecycle(self, decky_name: str, host_uuid: str | None) -> Row | None:
        """The oldest open row (by id, without payload) of this decky on this host (None: the master's)."""

    @abstractmethod
    async def list_open_lifecycles(self) -> list[Row]:
        """Every open row, without payload, in the order of ids."""

    @abstractmethod
    async def list_lifecycles(
        self,
        *,
        statuses: Sequence[Status] = (),
        decky_name: str | None = None,
        host_uuid: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> list[Row]:
        """Rows without payload, newest first; an empty filter means any."""

    @abstractmethod
    async def get_deployed(self, decky_name: str, host_uuid: str | None) -> Deployed | None:
        """What this decky was last brought to by a row that succeeded, or None."""

    @abstractmethod
    async def find_document(self, decky_name: str, host_uuid: str | None) -> dict[str, Any] | None:
        """The document that a mutate accepted now would find: the newest open row's (payload key
        "compose"), else the deployed one's."""

    @abstractmethod
    async def sweep_stale_lifecycle(self, older_than: datetime, reason: str) -> int:
        """Fail every open row with `started_at` before `older_than` (aware); `reason` becomes its error.

        Returns:
            How many rows were closed.
        """

    @abstractmethod
    async def prune_lifecycles(self, older_than: datetime, limit: int = 500) -> int:
        """Remove up to `limit` terminal rows that ended before `older_than`; returns how many."""

    @abstractmethod
    async def check(self) -> dict[str, str]:
        """Facts for a doctor: `path`, `schema`, `sqlite_version`, `journal_mode`, `integrity` ("ok")."""
