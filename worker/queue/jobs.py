"""What is in Redis: the names of the keys, the shape of a job. Whatever is read there is untrusted."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from arq.constants import in_progress_key_prefix, job_key_prefix

EXECUTE = "execute"
"""The one function of the work queue; its one argument is a lifecycle id."""

SWEEP_QUEUE = "decnet-reaper:sweep"
MARKER = "decnet-reaper:marker"

DeliveryState = Literal["queued", "picked", "absent"]
"""`queued`: waiting in the queue; `picked`: a worker took it (and may have died since); `absent`: neither."""


class Delivery(NamedTuple):
    """One ring for one row. Each has its own job id: a killed worker's stays taken for minutes."""

    lifecycle_id: str
    number: int
    host_uuid: str | None

    @property
    def job_id(self) -> str:
        """The id of the arq job."""
        return f"{self.lifecycle_id}.{self.number}"

    @property
    def job_key(self) -> str:
        """Where arq keeps the job's body."""
        return job_key_prefix + self.job_id

    @property
    def in_progress_key(self) -> str:
        """What arq sets while a worker has the job."""
        return in_progress_key_prefix + self.job_id


def queue_name(host_uuid: str | None) -> str:
    """The queue of a host's deckies; None is the master's own."""
    return "decnet-reaper:jobs" + (f":{host_uuid}" if host_uuid else "")


def wake_list(host_uuid: str | None) -> str:
    """The list in which a host's idle workers wait for a token."""
    return "decnet-reaper:wake" + (f":{host_uuid}" if host_uuid else "")


def line_key(lifecycle_id: str) -> str:
    """Where the line is that a running operation printed last."""
    return f"decnet-reaper:line:{lifecycle_id}"


class Job(msgspec.Struct):
    """arq's job, with its own short names (`arq.jobs.serialize_job`), as narrow as ours are."""

    f: str
    """The function's name."""
    a: list[str]
    """Its arguments."""
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


def read_job(body: bytes, functions: Mapping[str, Any]) -> Job:
    """The job in a body, if it is one that could be ours. Raises `Refused`."""
    if not body:
        raise Refused("the job has no body: it expired, or never had one")
    try:
        job = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Refused(f"the job's body isn't a job: {error}") from None
    if job.f not in functions:
        raise Refused(f"unknown function {job.f[:64]!a}")
    if job.k or len(job.a) != (1 if job.f == EXECUTE else 0):
        raise Refused(f"wrong arguments for {job.f!r}")
    if job.a and not (0 < len(job.a[0]) <= 64 and job.a[0].isprintable()):
        raise Refused(f"no lifecycle id: {job.a[0][:64]!a}")
    return job
