"""mutate: change a decky's services as one change, or bring the previous ones back."""

from typing import Any

from repo.base import BaseRepository, Deployed
from repo.lifecycle import host_key
from worker.documents import document as documents
from worker.operations.base import InvalidRequest, Request, Work, wanted_of
from worker.runtimes.base import OperationFailed

_HALF_A_REASON = 900
"""Characters of each of two reasons, so that both fit into a row's error."""


class Mutate:
    """The request picks among the services of the decky's document, or brings a new document."""

    async def payload(self, request: Request, store: BaseRepository) -> dict[str, Any]:
        decky_name, host_uuid, compose, services = request
        if (services is None) == (compose is None):
            raise InvalidRequest("a mutate takes either services or a Compose document")
        if await _is_torn_down(request, store):
            raise InvalidRequest(f"{decky_name} was torn down: deploy it before you mutate it")
        if compose is not None:
            return {"compose": documents.parse(compose, decky_name)}
        if not isinstance(services, list | tuple) or not all(isinstance(name, str) for name in services):
            raise InvalidRequest("services must be a list of names")
        document = await store.find_document(decky_name, host_uuid)
        if document is None:
            raise InvalidRequest(f"{decky_name} has never been deployed: deploy it before you mutate it")
        document = documents.parse(document, decky_name)  # an open row's, which anybody wrote
        return {"services": documents.choose(document, decky_name, services)}

    async def perform(self, work: Work) -> Deployed:
        wanted = wanted_of(work)
        try:
            await work.apply(wanted)
        except OperationFailed as error:
            if work.deployed is None:
                raise
            raise await _brought_back(work, work.deployed, error) from error
        return wanted


async def _is_torn_down(request: Request, store: BaseRepository) -> bool:
    """Whether the decky's newest row is a teardown that has not failed."""
    newest = await store.list_lifecycles(
        decky_name=request.decky_name, host_uuid=host_key(request.host_uuid), limit=1
    )
    return any(row["operation"] == "teardown" and row["status"] != "failed" for row in newest)


async def _brought_back(work: Work, previous: Deployed, error: OperationFailed) -> OperationFailed:
    """Bring the previous services back; the error that says both, what failed and what became of them."""
    kind, reason = type(error), str(error)[-_HALF_A_REASON:]
    try:
        await work.apply(previous)
    except OperationFailed as second:
        return kind(
            f"{reason}\nand the previous services could not be brought back: {str(second)[-_HALF_A_REASON:]}"
        )
    return kind(f"{reason}\nthe previous services were brought back: {', '.join(previous.services)}")
