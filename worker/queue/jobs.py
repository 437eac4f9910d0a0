"""What is in Redis: the names of the keys, the shape of a job. Whatever is read there is untrusted.

Each key names its host, so that a Redis user can be held to those of one host (`worker.queue.users`). The
master's own deckies are those of "-", which no host can be called.

====================================  =======================================================================
`decnet-reaper:<host>:jobs`           the queue of a host's deckies: ids of jobs, by the time of enqueueing
`decnet-reaper:<host>:sweep`          the queue of its reapers' cron
`decnet-reaper:<host>:wake`           a list in which its idle workers wait for a token
`decnet-reaper:<host>:store`          which store they serve; lapses a minute after the last daemon
`decnet-reaper:<host>:marker`         a random value, gone when Redis was emptied
`decnet-reaper:<host>:probe`          written by a check, to see that writing is possible
`decnet-reaper:<host>:line:<id>`      what a running operation printed last
`arq:job:<host>:<id>.<n>`             arq's job: the n-th delivery of a lifecycle
`arq:in-progress:<host>:<id>.<n>`     set while a worker has the job
====================================  =======================================================================
"""

from collections.abc import Collection
from typing import Any, Literal, NamedTuple, Self

import msgspec
from arq.constants import in_progress_key_prefix, job_key_prefix, result_key_prefix

from repo.base import DECKY_NAME, Lifecycle

DeliveryState = Literal["queued", "picked", "absent"]
"""`queued`: waiting in the queue; `picked`: a worker took it (and may have died since); `absent`: neither."""


class Delivery(NamedTuple):
    """One job for one row. Each has its own id: a killed worker's stays taken for minutes."""

    lifecycle_id: str
    number: int
    host_uuid: str | None
    operation: str
    decky_name: str

    @classmethod
    def latest(cls, row: Lifecycle) -> Self:
        """The delivery of this row that was enqueued last."""
        return cls(row["id"], row["deliveries"], row["host_uuid"], row["operation"], row["decky_name"])

    def next(self) -> Self:
        """The one after this."""
        return self._replace(number=self.number + 1)

    @property
    def job_id(self) -> str:
        """The id of the arq job."""
        return f"{_host(self.host_uuid)}:{self.lifecycle_id}.{self.number}"


def _host(host_uuid: str | None) -> str:
    return host_uuid or "-"


def key(host_uuid: str | None, what: str) -> str:
    """The name of a key of a host's: what is one of those in the table above."""
    return f"decnet-reaper:{_host(host_uuid)}:{what}"


def line_key(host_uuid: str | None, lifecycle_id: str) -> str:
    """Where the line is that a running operation printed last."""
    return key(host_uuid, f"line:{lifecycle_id}")


def sweep_function(host_uuid: str | None) -> str:
    """The function of the reapers' cron, with which arq begins the ids of its jobs."""
    return f"{_host(host_uuid)}:sweep"


def key_patterns(host_uuid: str) -> list[str]:
    """The keys that a host's daemons need, as patterns of Redis (a host id has none of its wildcards)."""
    arq = (job_key_prefix, in_progress_key_prefix, result_key_prefix)
    return [f"decnet-reaper:{host_uuid}:*", *(f"{prefix}{host_uuid}:*" for prefix in arq)]


class Job(msgspec.Struct):
    """arq's job, with its own short names (`arq.jobs.serialize_job`), as narrow as ours are."""

    f: str
    """The function's name: the operation, or the sweep."""
    a: list[str]
    """Its arguments: the lifecycle id and the decky's name, or none."""
    et: int
    """When it was enqueued, in milliseconds since 1970."""
    t: int | None = None
    """arq's number of the try; unused, since attempts are the store's."""
    k: dict[str, str] = {}
    """Keyword arguments; ours have none."""


class Refused(ValueError):
    """A job that isn't one of ours; the message is the reason."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Job)


def encode(job: dict[str, Any]) -> bytes:
    """A job as JSON: what arq calls a serializer. Its default is pickle, which runs code when read."""
    return _encoder.encode(job)


def decode(body: bytes) -> dict[str, Any]:
    """The way back: what arq calls a deserializer."""
    return msgspec.structs.asdict(_decoder.decode(body))


def read_job(body: bytes, functions: Collection[str], arguments: int) -> Job:
    """The job in a body, if it is one that could be ours.

    Args:
        body: as it came from Redis.
        functions: those that there are.
        arguments: how many each of them takes: a lifecycle id and a decky's name, or none.

    Raises:
        Refused: why it isn't.
    """
    if not body:
        raise Refused("the job has no body: it expired, or never had one")
    try:
        job = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Refused(f"the job's body isn't a job: {error}") from None
    if job.f not in functions:
        raise Refused(f"unknown function {job.f[:64]!a}")
    if job.k or len(job.a) != arguments:
        raise Refused(f"wrong arguments for {job.f!r}")
    if job.a and not (0 < len(job.a[0]) <= 64 and job.a[0].isprintable()):
        raise Refused(f"no lifecycle id: {job.a[0][:64]!a}")
    if job.a and not DECKY_NAME.fullmatch(job.a[1]):
        raise Refused(f"no decky's name: {job.a[1][:64]!a}")
    return job
