"""The contract of the store: what every repository answers, whatever database is behind it.

One row is one attempt of one operation on one decky. A row moves

    pending -> running -> succeeded | failed        (pending -> succeeded | failed too)

and nothing leaves a terminal row. Rows come back as plain JSON-ready dicts whose times are ISO 8601
strings in aware UTC. Every write would survive a power cut when its call returns, but where the call
says otherwise.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from repo.history import History
from repo.lifecycle import (
    ANY_HOST,
    CANCELLED,
    DECKY_NAME,
    ID,
    OPEN,
    OPERATIONS,
    OUTCOMES,
    TERMINAL,
    Claim,
    Deployed,
    DeployedDecky,
    Ending,
    Filter,
    Host,
    HostState,
    Lifecycle,
    Operation,
    Outcome,
    Status,
    StoreIdentity,
)

__all__ = [
    "ANY_HOST", "CANCELLED", "DECKY_NAME", "ID", "OPEN", "OPERATIONS", "OUTCOMES", "TERMINAL",
    "BaseRepository", "Claim", "Deployed", "DeployedDecky", "Ending", "Filter", "Host", "HostState",
    "Lifecycle", "Operation", "Outcome", "Status", "StoreIdentity",
]  # fmt: skip


class BaseRepository(History):
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
            StoreMissing, StoreUnusable, SchemaNewer, StoreBusy, StoreFull: with what to do about it.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the store. Forgetting this costs nothing: no hang, no warning, no lost row."""

    @abstractmethod
    async def sync(self) -> None:
        """Return when all that was answered by now would survive a power cut.

        Raises:
            StoreUnavailable: it may not, the disk has failed.
        """

    @abstractmethod
    async def create_lifecycle(self, data: Mapping[str, Any]) -> str:
        """Accept one attempt: a new row, `pending` unless said otherwise.

        Args:
            data: `decky_name` and `operation`; optionally `id`, `host_uuid`, `payload` (JSON-ready dict),
                `started_at` (aware datetime, default now), `status` ("pending", or "running" for a caller
                that starts by itself), `attempt`, `retry_of`, `deliveries` and `enqueued_at` (for whoever
                enqueues right after).

        Returns:
            The id: the given one, or a new UUID version 7.

        Raises:
            InvalidLifecycle: a field is missing, unknown or malformed.
            LifecycleExists: the given id is taken.
            DeckyBusy: it was to be running, and another operation is.
        """

    @abstractmethod
    async def submit_lifecycle(self, data: Mapping[str, Any], *, durable: bool = True) -> tuple[str, bool]:
        """Accept one attempt, unless the decky's newest open row asks for the same thing.

        "The same" is the same operation with the same payload. Only the newest open row counts: after
        A and B, a second A is a new wish, since B would otherwise have the last word.

        Args:
            data: as for `create_lifecycle`.
            durable: return when the row would survive a power cut; else when every process sees it, and
                nobody may be told its id before `sync`. On PostgreSQL both are the same moment.

        Returns:
            The id, and whether a row was created for it.
        """

    @abstractmethod
    async def update_lifecycle(self, lifecycle_id: str, fields: Mapping[str, Any]) -> None:
        """Change an open row; stamps `updated_at`, and `completed_at` with a terminal status unless given.

        From running to running changes nothing but the stamp and the other fields.

        Args:
            lifecycle_id: the row.
            fields: any of `status`, `error`, `started_at`, `completed_at`, `owner`, `claimed_at`.

        Raises:
            LifecycleNotFound, InvalidLifecycle, TransitionRefused, LifecycleClosed, DeckyBusy: nothing
                changed.
        """

    @abstractmethod
    async def claim_lifecycle(
        self, lifecycle_id: str, owner: str, *, decky: tuple[str, str | None] | None = None
    ) -> Claim | None:
        """Move a row from pending to running for `owner`, if its turn has come.

        Its turn has come when no older open row (by id) of the same decky on the same host is there. Where a
        power cut stops the owner too, nobody waits for the disk, which has the claim some milliseconds later:
        the row is pending then, as after any crash before the claim.

        Args:
            lifecycle_id: the row.
            owner: the worker.
            decky: the name and host of the decky whose lock is held, if the caller has not looked at the row:
                one of another decky is not claimed.

        Returns:
            The row as claimed, or None when it isn't pending or must wait.
        """

    @abstractmethod
    async def end_lifecycle(
        self,
        lifecycle_id: str,
        *,
        outcome: Outcome,
        expect: Literal["pending", "running"] = "running",
        owner: str | None = None,
        error: str | None = None,
        deployed: Deployed | None = None,
        undeploy: bool = False,
        retry: bool = False,
        if_host: HostState | None = None,
    ) -> Ending:
        """End a row, if it still is what the caller believes it to be. All of it is one transaction.

        Where a cancel was accepted before, and the operation came to no end of its own (neither succeeded
        nor failed), the row ends as cancelled, with no retry, whatever the caller says.

        Args:
            lifecycle_id: the row.
            outcome: how it ended; the status follows from it.
            expect: the state that the row must be in.
            owner: the owner that a running row must have (a null owner in the row matches None).
            error: why it failed (cut to 2,000 characters); not with "succeeded".
            deployed: what the decky runs now; recorded with the row's end.
            undeploy: the decky runs nothing any more; forgotten with the row's end.
            retry: also accept the same request again as a new pending row (`retry_of`, `attempt` + 1), which
                the ended row names (`retry_id`). Its id sorts right behind the ended row's, so that it runs
                before what was accepted later.
            if_host: only if the row's host is that at this very moment, and no other session holds the row.
                In a file's store every host is absent, and none is lost.

        Returns:
            Whether it was applied, as what, and the id of the retry.

        Raises:
            LifecycleNotFound: no such row; not where `if_host` is given.
        """

    @abstractmethod
    async def retry_lifecycle(self, lifecycle_id: str) -> str:
        """An operator's "the same again": accept the request of a terminal row as a new pending row.

        The new row names the old one (`retry_of`), has attempt 1 and one delivery, and stands behind what
        was accepted before.

        Returns:
            The id of the new row.

        Raises:
            LifecycleNotFound: no such row.
            TransitionRefused: it is still open.
            InvalidLifecycle: nobody knows what was asked for (a row that DECNET itself wrote).
        """

    @abstractmethod
    async def request_cancel(self, lifecycle_id: str) -> Status:
        """Cancel: closes a pending row as failed (`CANCELLED`), marks a running one.

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
        """Count one more delivery of a pending row, and stamp `enqueued_at`, if `deliveries` is still its
        count; whether it was counted."""

    @abstractmethod
    async def get_lifecycle(self, lifecycle_id: str) -> Lifecycle | None:
        """One row, without payload; None if there is no such row."""

    @abstractmethod
    async def get_lifecycle_by_ids(self, ids: Iterable[str], *, payload: bool = True) -> list[Lifecycle]:
        """Rows by id, oldest first; unknown ids are omitted; any number of ids. Who only looks leaves out
        their payloads, which hold whole documents."""

    @abstractmethod
    async def find_open_lifecycle(
        self, decky_name: str, operation: str, host_uuid: str | None = None
    ) -> Lifecycle | None:
        """The newest open row of this decky and operation; no host given means any host."""

    @abstractmethod
    async def find_next_lifecycle(self, decky_name: str, host_uuid: str | None) -> Lifecycle | None:
        """The oldest open row (by id, without payload) of this decky on this host (None: the master's)."""

    @abstractmethod
    async def find_ready_lifecycles(self, host_uuid: str | None, limit: int) -> list[Lifecycle]:
        """Up to `limit` pending rows of this host (None: the master's) that are first in line on their
        decky, without payload, in the order of ids."""

    @abstractmethod
    async def list_open_lifecycles(self, host_uuid: str | None = ANY_HOST) -> list[Lifecycle]:
        """Every open row of this host (None: the master's), without payload, in the order of ids."""

    @abstractmethod
    async def list_open_elsewhere(self, hosts: Iterable[str | None]) -> list[Lifecycle]:
        """Every open row of any host but these (None: the master's), without payload, in the order of ids."""

    @abstractmethod
    async def list_lost_lifecycles(self, host_uuid: str | None) -> list[Lifecycle]:
        """Rows of this host (None: the master's) that were closed as lost, without payload."""

    @abstractmethod
    async def list_lifecycles(self, **wanted: Unpack[Filter]) -> list[Lifecycle]:
        """Rows without payload, newest first."""

    @abstractmethod
    async def get_deployed(self, decky_name: str, host_uuid: str | None) -> Deployed | None:
        """What this decky was last brought to by a row that succeeded, or None."""

    @abstractmethod
    async def list_deployed(
        self, *, host_uuid: str | None = ANY_HOST, decky_name: str | None = None
    ) -> list[DeployedDecky]:
        """What each decky of this host (None: the master's) runs, by name."""

    @abstractmethod
    async def find_document(self, decky_name: str, host_uuid: str | None) -> dict[str, Any] | None:
        """The document that a mutate accepted now would find: the newest open row's (payload key
        "compose"), else the deployed one's."""

    @abstractmethod
    async def sweep_stale_lifecycle(
        self, older_than: datetime, reason: str, *, host_uuid: str | None = ANY_HOST
    ) -> int:
        """Fail every open row of this host (None: the master's) with `started_at` before `older_than`
        (aware); `reason` becomes its error, its outcome is "swept".

        Returns:
            How many rows were closed.
        """

    @abstractmethod
    async def prune_lifecycles(self, older_than: datetime, limit: int = 500) -> int:
        """Remove up to `limit` terminal rows that ended before `older_than`; returns how many.

        A host whose database role may not remove rows leaves them to the master: 0.
        """

    @abstractmethod
    async def identify(self) -> StoreIdentity:
        """Which store this is."""

    @abstractmethod
    async def list_hosts(self) -> list[Host]:
        """Every host that was ever present, by its id; none on SQLite, or for a role that may not ask."""

    @abstractmethod
    async def check(self) -> dict[str, str]:
        """Facts for a doctor: `path`, `schema`, `integrity` ("ok").

        Of SQLite also `sqlite_version`, `journal_mode`; of PostgreSQL `postgresql_version`,
        `synchronous_commit`, `synchronous_standby_names`, `pooler` ("yes").
        """
