"""deploy: bring a decky up from a document."""

from typing import Any

from repo.base import BaseRepository, Deployed
from worker.documents import document as documents
from worker.operations.base import InvalidRequest, Request, Work, wanted_of


class Deploy:
    """The request is a Compose document; all of the decky's services in it run afterwards."""

    async def payload(self, request: Request, store: BaseRepository) -> dict[str, Any]:
        if request.compose is None or request.services is not None:
            raise InvalidRequest("a deploy takes a Compose document and nothing else")
        return {"compose": documents.parse(request.compose, request.decky_name)}

    async def perform(self, work: Work) -> Deployed:
        wanted = wanted_of(work)
        await work.apply(wanted)
        return wanted
