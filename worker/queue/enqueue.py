"""The ringing side of the queue: put deliveries in, see what became of them."""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from arq.constants import expires_extra_ms
from arq.jobs import serialize_job

from worker.queue.connection import QueueUnavailable, parse_dsn, reaching
from worker.queue.jobs import (
    EXECUTE,
    MARKER,
    Delivery,
    DeliveryState,
    encode,
    line_key,
    queue_name,
    wake_list,
)

_ENQUEUE = Path(__file__).with_name("enqueue.lua").read_text()

_BATCH = 1000
"""Deliveries in one round trip."""
_TOKENS = 64
"""Tokens kept in a wake list: no more workers than that are woken at once."""
_LINE_KEPT_S = 600
"""Seconds for which the line that an operation printed last is kept."""


@dataclass
class _Together:
    """Rings that are sent in one round trip, and why they weren't."""

    deliveries: list[Delivery] = field(default_factory=list)
    failure: str | None = None


class Queue:
    """A client of the queue. It connects at the first call, and no call takes longer than seconds.

    `dsn` is `redis://`, `rediss://` or `unix:///path?db=0`; raises `InvalidDSN`. Every method raises
    `QueueUnavailable` when Redis is away, frozen, read-only or refuses us; what it had done by then is
    unknown, which is fine: ringing twice is free.
    """

    def __init__(self, dsn: str) -> None:
        self._server = parse_dsn(dsn)
        self._redis = self._server.connect(connections=16, queue=queue_name(None))
        self._enqueue_script = self._redis.register_script(_ENQUEUE)
        self._sending = asyncio.Lock()
        self._together = _Together()
        self._marker: bytes | None = None

    @property
    def name(self) -> str:
        """The DSN without user, password and options, for log lines."""
        return self._server.name

    async def enqueue(self, deliveries: Sequence[Delivery]) -> None:
        """Enqueue a job for each delivery, oldest first, and wake idle workers.

        Concurrent calls go along together: whoever is first sends for all who came while the last were sent.
        """
        together = self._together
        together.deliveries.extend(deliveries)
        async with self._sending:
            if together is self._together:
                self._together = _Together()
                try:
                    await self._send(together.deliveries)
                except BaseException as error:
                    together.failure = str(error) or f"{self.name}: the call was cancelled"
                    raise
        if together.failure:
            raise QueueUnavailable(together.failure)

    async def _send(self, deliveries: Sequence[Delivery]) -> None:
        for batch in _batches(deliveries):
            now = time.time_ns() // 1_000_000
            for host_uuid, group in _by_host(batch).items():
                jobs = [part for each in group for part in _job(each, now)]
                async with reaching(self._server):
                    await self._enqueue_script(
                        keys=[queue_name(host_uuid), wake_list(host_uuid)],
                        args=[now, expires_extra_ms, _TOKENS, *jobs],
                    )

    async def states(self, deliveries: Sequence[Delivery]) -> list[DeliveryState]:
        """What became of each delivery, in the order given."""
        found: dict[Delivery, DeliveryState] = {}
        for batch in _batches(deliveries):
            by_host = {
                host: [d for d in batch if d.host_uuid == host] for host in {d.host_uuid for d in batch}
            }
            async with reaching(self._server), self._redis.pipeline(transaction=False) as pipe:
                for host_uuid, group in by_host.items():
                    pipe.zmscore(queue_name(host_uuid), [each.job_id for each in group])
                    pipe.mget([each.job_key for each in group])
                    pipe.mget([each.in_progress_key for each in group])
                answers = iter(await pipe.execute())
            for group in by_host.values():
                for each, score, body, holder in zip(
                    group, next(answers), next(answers), next(answers), strict=True
                ):
                    found[each] = _state(score, body, holder)
        return [found[each] for each in deliveries]

    async def was_emptied(self) -> bool:
        """Whether Redis lost its contents, or is another one, since the last call on this object.

        A marker with a random value tells: True when it is gone or another. On the first call True when there
        is none, since nothing is known to be queued then. Several callers share one marker without a quarrel:
        each compares with the value that it saw last.
        """
        async with reaching(self._server), self._redis.pipeline(transaction=True) as pipe:
            pipe.set(MARKER, uuid.uuid4().hex, nx=True)
            pipe.get(MARKER)
            was_missing, marker = await pipe.execute()
        known, self._marker = self._marker, marker
        return bool(was_missing) or known not in (None, marker)

    async def put_lines(self, lines: Mapping[str, str]) -> None:
        """Keep the line that each of these operations, by lifecycle id, printed last."""
        async with reaching(self._server), self._redis.pipeline(transaction=False) as pipe:
            for lifecycle_id, line in lines.items():
                pipe.set(line_key(lifecycle_id), line, ex=_LINE_KEPT_S)
            await pipe.execute()

    async def lines(self, lifecycle_ids: Sequence[str]) -> dict[str, str]:
        """The lines that were kept for these lifecycle ids. They are as untrusted as all that is in Redis."""
        if not lifecycle_ids:
            return {}
        async with reaching(self._server):
            kept = await self._redis.mget([line_key(each) for each in lifecycle_ids])
        found = zip(lifecycle_ids, kept, strict=True)
        return {each: line.decode(errors="replace") for each, line in found if line is not None}

    async def depth(self, host_uuid: str | None = None) -> int:
        """How many jobs are in a host's queue, those that are being run included."""
        async with reaching(self._server):
            return int(await self._redis.zcard(queue_name(host_uuid)))

    async def ping(self) -> None:
        """Return if Redis answers."""
        async with reaching(self._server):
            await self._redis.ping()

    async def close(self) -> None:
        """Close the connections; a later call would open new ones."""
        await self._redis.aclose(close_connection_pool=True)


def _batches(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    rest = iter(deliveries)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _job(delivery: Delivery, now: int) -> tuple[str, bytes]:
    body = serialize_job(EXECUTE, (delivery.lifecycle_id,), {}, None, now, serializer=encode)
    return delivery.job_id, body or b""


def _by_host(deliveries: Sequence[Delivery]) -> dict[str | None, list[Delivery]]:
    hosts: dict[str | None, list[Delivery]] = {}
    for each in deliveries:
        hosts.setdefault(each.host_uuid, []).append(each)
    return hosts


def _state(score: float | None, body: bytes | None, holder: bytes | None) -> DeliveryState:
    if holder is not None:
        return "picked"
    return "absent" if score is None or body is None else "queued"
