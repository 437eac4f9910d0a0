"""What an operation is: what its request must contain, what it does to the decky, what it leaves deployed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from repo.base import BaseRepository, Deployed
from repo.errors import DecnetReaperError
from worker.documents import document as documents
from worker.runtimes.base import OperationFailed


class InvalidRequest(DecnetReaperError, ValueError):
    """The request can't be accepted; no row exists for it."""


class Request(NamedTuple):
    """What a caller asks for, its target checked and the rest not.

    Attributes:
        decky_name: the decky.
        host_uuid: the host that it lives on; None for the master's own.
        compose: a Compose document, as a mapping or as YAML text.
        services: names of services, whole or without the decky's in front.
    """

    decky_name: str
    host_uuid: str | None
    compose: Mapping[str, Any] | str | None = None
    services: Sequence[str] | None = None


class Work(Protocol):
    """A claimed row at work: its request, and the two things that can be done to its decky."""

    @property
    def decky_name(self) -> str:
        """The decky."""

    @property
    def payload(self) -> Mapping[str, Any]:
        """What was accepted: what the operation's `payload` returned."""

    @property
    def deployed(self) -> Deployed | None:
        """What the decky was last brought to; None where nothing is deployed."""

    async def apply(self, wanted: Deployed) -> None:
        """Bring the decky to exactly this. Raises OperationFailed."""

    async def remove(self) -> None:
        """Take the decky down. Raises OperationFailed."""


class DeckyOperation(Protocol):
    """One operation. It is entered in `worker.operations.registry`."""

    async def payload(self, request: Request, store: BaseRepository) -> dict[str, Any]:
        """Check a request before a row exists for it.

        Returns:
            What the row keeps of it, as JSON values. Equal payloads are the same request.

        Raises:
            InvalidRequest, InvalidDocument: it can't be accepted; one line says why.
        """

    async def perform(self, work: Work) -> Deployed | None:
        """Do it. What it begins, it may be asked to begin again after a crash at any point.

        Returns:
            What the decky runs now; None where nothing is deployed on it any more.

        Raises:
            OperationFailed: the row's `error`; what was deployed before stays recorded as that.
        """


def wanted_of(work: Work) -> Deployed:
    """What a request asks for: its document, else the deployed one, and of that the services it names."""
    document = work.deployed.document if work.deployed else None
    if (given := work.payload.get("compose")) is not None:
        document = documents.parse(given, work.decky_name)
    if document is None:
        raise OperationFailed(f"{work.decky_name} has no deployed document: deploy it first")
    return Deployed(document, documents.choose(document, work.decky_name, work.payload.get("services")))
