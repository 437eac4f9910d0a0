"""The master's side: accept an operation within milliseconds, then look at its row.

    async with LifecycleClient() as client:
        lifecycle_id = await client.deploy("decky-01", compose=document)
        row = await client.wait(lifecycle_id, timeout=300)

The row is written first and enqueued second. If Redis is away the caller still gets its id: the row waits in
the store, where workers and the reaper find it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from repo.base import DECKY_NAME, ID, OPEN, BaseRepository, Lifecycle, Operation
from repo.errors import LifecycleNotFound
from repo.factory import repository_of
from repo.lifecycle import is_retry
from worker.clock import now
from worker.documents.document import parse
from worker.documents.limits import InvalidDocument
from worker.documents.policy import check_policy
from worker.logging.emit import emit, emit_end
from worker.operations.base import InvalidRequest, Request
from worker.operations.registry import OPERATIONS
from worker.queue import Delivery, Queue, QueueUnavailable
from worker.settings import WorkerSettings, load

__all__ = ["InvalidDocument", "InvalidRequest", "LifecycleClient"]


class LifecycleClient:
    """Submits operations and reads their rows. Use as an async context manager.

    Args:
        settings: default: read from the environment and the configuration file.

    Raises:
        StoreUnavailable: on entering, when the store can't be used.
    """

    def __init__(self, settings: WorkerSettings | None = None) -> None:
        self.settings = load(WorkerSettings) if settings is None else settings
        self.repository: BaseRepository = repository_of(self.settings)
        self._queue = Queue(self.settings.redis)
        self._queue_away = False
        # Enqueued behind the caller's back: a frozen Redis takes seconds to be given up, and the row is safe.
        self._enqueuing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.repository.initialize()
        self._queue.store = await self.repository.identify()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*self._enqueuing)
        await self._queue.close()
        await self.repository.close()

    async def deploy(
        self, decky_name: str, compose: Mapping[str, Any] | str, *, host_uuid: str | None = None
    ) -> str:
        """Accept a deploy.

        Args:
            decky_name: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
            compose: the decky's Compose document, as a dict or as YAML text; at most 1 MiB.
            host_uuid: the host that the decky lives on; None for the master's own.

        Returns:
            The lifecycle id; the open row's if the decky's newest open row asks for the same.

        Raises:
            InvalidRequest, InvalidDocument: nothing was accepted.
            StoreUnavailable: nothing was accepted.
        """
        return await self.submit("deploy", decky_name, compose=compose, host_uuid=host_uuid)

    async def mutate(
        self,
        decky_name: str,
        *,
        services: Sequence[str] | None = None,
        compose: Mapping[str, Any] | str | None = None,
        host_uuid: str | None = None,
    ) -> str:
        """Accept a mutate: either pick among the services of the decky's document, or bring a new document.

        Args:
            decky_name: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
            services: names as in the document ("decky-01-ssh") or without the decky's ("ssh"); the base
                service is always kept.
            compose: a new Compose document.
            host_uuid: the host that the decky lives on; None for the master's own.

        Returns, Raises:
            As `deploy`.
        """
        return await self.submit(
            "mutate", decky_name, services=services, compose=compose, host_uuid=host_uuid
        )

    async def teardown(self, decky_name: str, *, host_uuid: str | None = None) -> str:
        """Accept a teardown: what runs for the decky goes, and nothing is deployed on it any more.

        Args:
            decky_name: as for `deploy`.
            host_uuid: the host that the decky lives on; None for the master's own.

        Returns, Raises:
            As `deploy`.
        """
        return await self.submit("teardown", decky_name, host_uuid=host_uuid)

    async def submit(
        self,
        operation: Operation,
        decky_name: str,
        *,
        compose: Mapping[str, Any] | str | None = None,
        services: Sequence[str] | None = None,
        host_uuid: str | None = None,
    ) -> str:
        """Accept any operation of the registry; `deploy`, `mutate` and `teardown` say what each takes.

        Returns, Raises:
            As `deploy`.
        """
        _check_target(decky_name, host_uuid)
        request = Request(decky_name, host_uuid, compose, services)
        payload = await OPERATIONS[operation].payload(request, self.repository)
        if "compose" in payload:
            check_policy(payload["compose"], self.settings.document_policy)
        accepted_at = now()
        asked = {"decky_name": decky_name, "operation": operation, "host_uuid": host_uuid, "payload": payload}
        enqueued = {"started_at": accepted_at, "deliveries": 1, "enqueued_at": accepted_at}

        lifecycle_id, created = await self.repository.submit_lifecycle(asked | enqueued, durable=False)
        if created:
            # Enqueued while the disk makes the row durable: a power cut would stop its worker too.
            self._enqueue_soon(Delivery(lifecycle_id, 1, host_uuid, operation, decky_name))
        await self.repository.sync()
        if created:
            emit(
                "lifecycle.accepted",
                lifecycle_id=lifecycle_id,
                decky_name=decky_name,
                operation=operation,
                host_uuid=host_uuid,
                attempt=1,
                retry_of=None,
                started_at=accepted_at.isoformat(),
            )
        return lifecycle_id

    async def retry(self, lifecycle_id: str) -> str:
        """Accept the request of a row that has ended once more, as a new row that names the old one.

        It is checked as a new request is: a mutate of a decky that was torn down since is refused.

        Returns:
            The new row's id.

        Raises:
            LifecycleNotFound: no such row.
            TransitionRefused: it is still open.
            InvalidRequest, InvalidDocument, InvalidLifecycle: the request can't be accepted now.
            StoreUnavailable: nothing was accepted.
        """
        row = await self.get(lifecycle_id)
        if row["status"] not in OPEN and (payload := row.get("payload")) is not None:
            compose, services = payload.get("compose"), payload.get("services")
            request = Request(row["decky_name"], row["host_uuid"], compose, services)
            await OPERATIONS[row["operation"]].payload(request, self.repository)
        retry = await self.get(await self.repository.retry_lifecycle(lifecycle_id))
        emit("lifecycle.accepted", retry, started_at=retry["started_at"])
        self._enqueue_soon(Delivery.latest(retry))
        return retry["id"]

    def _enqueue_soon(self, delivery: Delivery) -> None:
        enqueuing = asyncio.create_task(self._enqueue(delivery))
        self._enqueuing.add(enqueuing)
        enqueuing.add_done_callback(self._enqueuing.discard)

    async def _enqueue(self, delivery: Delivery) -> None:
        try:
            await self._queue.enqueue([delivery])
            self._queue_away = False
        except QueueUnavailable as error:
            if not self._queue_away:
                emit("queue.unreachable", redis=self._queue.name, reason=str(error))
            self._queue_away = True

    def check(self, decky_name: str, compose: Mapping[str, Any] | str) -> None:
        """Look at a document as `deploy` would: for who accepts several deckies, or none.

        Raises:
            InvalidDocument: what is wrong with it, or what the document policy refuses.
        """
        check_policy(parse(compose, decky_name), self.settings.document_policy)

    async def get(self, lifecycle_id: str) -> Lifecycle:
        """One row.

        Raises:
            LifecycleNotFound: no such row.
        """
        rows = await self.repository.get_lifecycle_by_ids([lifecycle_id])
        if not rows:
            raise LifecycleNotFound(f"there is no lifecycle {lifecycle_id}")
        return rows[0]

    async def wait(
        self,
        lifecycle_id: str,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        follow: bool = False,
    ) -> Lifecycle:
        """Wait for the end of a row.

        Args:
            lifecycle_id: the row.
            timeout: seconds; None waits for ever.
            follow: where it was interrupted and is retried (`retry_id`), wait for the end of the retry.

        Returns:
            The terminal row; with `follow` the last retry's, whose id is another one.

        Raises:
            TimeoutError: it is still open after `timeout`.
            LifecycleNotFound: no such row.
        """
        pause = 0.01
        async with asyncio.timeout(timeout):
            while True:
                row = await self.repository.get_lifecycle(lifecycle_id)
                if row is not None and row["status"] in OPEN:
                    await asyncio.sleep(pause)
                    pause = min(0.25, pause * 1.5)
                    continue
                retry_id = row["retry_id"] if row is not None and follow else None
                retry = await self.repository.get_lifecycle(retry_id) if retry_id else None
                if row is None or retry is None or not is_retry(retry, of=row):
                    return await self.get(lifecycle_id)
                lifecycle_id = retry["id"]

    async def progress(self, rows: Sequence[Lifecycle]) -> dict[str, str]:
        """What running operations are doing, for a person to look at.

        Args:
            rows: the rows.

        Returns:
            By id, the last line that the runtime printed, its secrets masked. It may steer a terminal
            (`worker.logging.console.printable` prevents that), come late, or be missing, as while Redis is
            away.
        """
        found: dict[str, str] = {}
        try:
            for host_uuid in {row["host_uuid"] for row in rows}:
                ids = [row["id"] for row in rows if row["host_uuid"] == host_uuid]
                found |= await self._queue.lines(host_uuid, ids)
        except QueueUnavailable:
            return {}
        return found

    async def cancel(self, lifecycle_id: str, timeout: float = 60) -> Lifecycle:  # noqa: ASYNC109
        """Cancel: a pending row is closed at once, a running operation is ended by its worker.

        Args:
            lifecycle_id: the row.
            timeout: seconds to wait for the operation's end.

        Returns:
            The terminal row: failed with "cancelled by operator", or whatever end came first.

        Raises:
            LifecycleClosed: it had ended before.
            LifecycleNotFound: no such row.
            TimeoutError: the operation has been asked to end and has not yet.
        """
        if await self.repository.request_cancel(lifecycle_id) == "running":
            emit("lifecycle.cancel_requested", lifecycle_id=lifecycle_id)
            return await self.wait(lifecycle_id, timeout)
        row = await self.get(lifecycle_id)
        emit_end(row, "cancelled", error=row["error"])
        return row


def _check_target(decky_name: str, host_uuid: str | None) -> None:
    if not isinstance(decky_name, str) or not DECKY_NAME.fullmatch(decky_name):
        raise InvalidRequest(
            f"{decky_name!r} can't be a decky's name: letters, digits, '.', '_' and '-', at most 128,"
            " beginning with a letter or digit"
        )
    if host_uuid is not None and not ID.fullmatch(host_uuid):
        raise InvalidRequest(
            f"{host_uuid!r} can't be a host's id: letters, digits, '.', '_' and '-', at most 64"
        )
