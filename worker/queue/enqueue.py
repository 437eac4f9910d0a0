"""The client's side of the queue: put deliveries in, see what became of them."""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from arq.constants import expires_extra_ms
from arq.jobs import serialize_job
from redis.exceptions import NoPermissionError

from repo.base import StoreIdentity
from worker.queue.connection import (
    ClusterNode,
    QueueUnavailable,
    QueueUnusable,
    connect,
    disconnect,
    reaching,
)
from worker.queue.dsn import parse_dsn
from worker.queue.jobs import Delivery, DeliveryState, encode, key, line_key

_LUA = Path(__file__).parent / "lua"
_ENQUEUE, _STATES = ((_LUA / name).read_text() for name in ("enqueue.lua", "states.lua"))

_BATCH = 1000
"""Deliveries in one round trip."""
_PATIENCE = 1.0
"""Seconds for which a daemon's start waits for an answer; its first sweep must not need Redis."""
_TOKENS = 64
"""Tokens kept in a wake list: no more workers than that are woken at once."""
_LINE_KEPT_S = 600
"""Seconds for which the line that an operation printed last is kept."""
_LINE_BYTES = 4096
"""Bytes of it that are read, whatever somebody wrote there."""
_STATES_OF: dict[str, DeliveryState] = {"q": "queued", "p": "picked", "a": "absent"}


@dataclass
class _Together:
    """Deliveries that are sent in one round trip, and why they weren't."""

    deliveries: list[Delivery] = field(default_factory=list)
    failure: QueueUnavailable | None = None


class Queue:
    """A client of the queue. It connects at the first call, and no call takes longer than seconds.

    Every method raises `QueueUnavailable` when Redis is away, frozen, read-only or refuses us; what it had
    done by then is unknown, which is fine: enqueueing twice is free.

    Args:
        dsn: `redis://`, `rediss://`, `unix:///path?db=0` or `redis+sentinel://`, see `worker.queue.dsn`.

    Attributes:
        store: the store whose rows are enqueued; a queue of another store's is refused (`QueueUnusable`).
            None asks no questions.

    Raises:
        InvalidDSN: what is wrong with it.
    """

    def __init__(self, dsn: str) -> None:
        self.store: StoreIdentity | None = None
        self._server = parse_dsn(dsn)
        self._redis = connect(self._server, connections=16, queue=key(None, "jobs"))
        self._enqueue_script = self._redis.register_script(_ENQUEUE)
        self._states_script = self._redis.register_script(_STATES)
        self._sending = asyncio.Lock()
        self._together = _Together()
        self._markers: dict[str | None, bytes] = {}

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
                except QueueUnavailable as error:
                    together.failure = error
                except BaseException:
                    together.failure = QueueUnavailable(f"{self.name}: the call was cancelled")
                    raise
        if together.failure:
            raise type(together.failure)(str(together.failure))

    async def _send(self, deliveries: Sequence[Delivery]) -> None:
        for batch in _batches(deliveries):
            now = time.time_ns() // 1_000_000
            for host_uuid, group in _by_host(batch).items():
                jobs = [part for each in group for part in _job(each, now)]
                async with reaching(self._server, self.store):
                    await self._enqueue_script(
                        keys=[key(host_uuid, name) for name in ("jobs", "wake", "store")],
                        args=[" ".join(self.store or ()), now, expires_extra_ms, _TOKENS, *jobs],
                    )

    async def states(self, deliveries: Sequence[Delivery]) -> list[DeliveryState]:
        """What became of each delivery, in the order given."""
        found: dict[Delivery, DeliveryState] = {}
        for batch in _batches(deliveries):
            for host_uuid, group in _by_host(batch).items():
                async with reaching(self._server):
                    letters = await self._states_script(
                        keys=[key(host_uuid, "jobs")], args=[each.job_id for each in group]
                    )
                found |= {
                    each: _STATES_OF[letter] for each, letter in zip(group, letters.decode(), strict=True)
                }
        return [found[each] for each in deliveries]

    async def check(self, host_uuid: str | None = None) -> str:
        """Make sure that a host's queue can be used for our store, and is nobody else's.

        Returns:
            What the server is, such as "Redis 7.0.15"; "Redis" where its user may not ask.

        Raises:
            QueueUnusable: it is a node of a cluster, or the queue belongs to another store.
        """
        async with reaching(self._server, self.store):
            facts = await self._facts()
            if facts.get("redis_mode") == "cluster":
                raise ClusterNode
            # What workers and reapers do all day, so that what stands in their way shows here.
            none = Delivery("none", 0, host_uuid, "deploy", "none").job_id
            await self._states_script(keys=[key(host_uuid, "jobs")], args=[none])
            await self._enqueue_script(
                keys=[key(host_uuid, name) for name in ("jobs", "wake", "store")],
                args=[" ".join(self.store or ()), 0, 1, _TOKENS],
            )
            await self._redis.set(key(host_uuid, "probe"), "", px=1000)
        kind = "Valkey" if "valkey_version" in facts else "Redis"
        version = facts.get(f"{kind.lower()}_version")
        return f"{kind} {version}" if version else kind

    async def refuse_others(self, host_uuid: str | None = None) -> None:
        """Refuse, at a daemon's start, a queue that will never do. One that doesn't answer may be right.

        Raises:
            QueueUnusable: as `check`.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.check(host_uuid)
        except QueueUnusable:
            raise
        except (QueueUnavailable, TimeoutError):
            return  # whoever works waits for it, and looks then

    async def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = await self._redis.info("server")
        except NoPermissionError:
            return {}
        return facts

    async def was_emptied(self, host_uuid: str | None = None) -> bool:
        """Whether Redis lost its contents, or is another one, since the last call on this object.

        A host's marker with a random value shows it: True when it is gone or another. On the first call True
        when there is none, since nothing is known to be queued then. Several callers share one marker without
        a quarrel: each compares with the value that it saw last.
        """
        async with reaching(self._server), self._redis.pipeline(transaction=True) as pipe:
            pipe.set(key(host_uuid, "marker"), uuid.uuid4().hex, nx=True)
            pipe.getrange(key(host_uuid, "marker"), 0, 63)
            was_missing, marker = await pipe.execute()
        known, self._markers[host_uuid] = self._markers.get(host_uuid), marker
        return bool(was_missing) or known not in (None, marker)

    async def put_lines(self, host_uuid: str | None, lines: Mapping[str, str]) -> None:
        """Keep the line that each of these operations of a host, by lifecycle id, printed last."""
        async with reaching(self._server), self._redis.pipeline(transaction=False) as pipe:
            for lifecycle_id, line in lines.items():
                pipe.set(line_key(host_uuid, lifecycle_id), line, ex=_LINE_KEPT_S)
            await pipe.execute()

    async def lines(self, host_uuid: str | None, lifecycle_ids: Sequence[str]) -> dict[str, str]:
        """The lines that were kept for these rows of a host, as untrusted as all that is in Redis."""
        if not lifecycle_ids:
            return {}
        async with reaching(self._server), self._redis.pipeline(transaction=False) as pipe:
            for lifecycle_id in lifecycle_ids:
                pipe.getrange(line_key(host_uuid, lifecycle_id), 0, _LINE_BYTES - 1)
            kept = await pipe.execute()
        found = zip(lifecycle_ids, kept, strict=True)
        return {each: line.decode(errors="replace") for each, line in found if line}

    async def depth(self, host_uuid: str | None = None) -> int:
        """How many jobs are in a host's queue, those that are being run included."""
        async with reaching(self._server):
            return int(await self._redis.zcard(key(host_uuid, "jobs")))

    async def ping(self) -> None:
        """Return if Redis answers."""
        async with reaching(self._server):
            await self._redis.ping()

    async def close(self) -> None:
        """Close the connections; a later call would open new ones."""
        await disconnect(self._redis)


def _batches(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    rest = iter(deliveries)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _job(delivery: Delivery, now: int) -> tuple[str, bytes]:
    arguments = (delivery.lifecycle_id, delivery.decky_name)
    body = serialize_job(delivery.operation, arguments, {}, None, now, serializer=encode)
    return delivery.job_id, body or b""


def _by_host(deliveries: Sequence[Delivery]) -> dict[str | None, list[Delivery]]:
    hosts: dict[str | None, list[Delivery]] = {}
    for each in deliveries:
        hosts.setdefault(each.host_uuid, []).append(each)
    return hosts
