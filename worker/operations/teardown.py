"""teardown: take a decky away."""

from typing import Any

from repo.base import BaseRepository
from worker.operations.base import InvalidRequest, Request, Work


class Teardown:
    """The request is the decky alone; nothing of it runs or is deployed afterwards.

    One that was never deployed is torn down too: a deploy that failed may have left something.
    """

    async def payload(self, request: Request, store: BaseRepository) -> dict[str, Any]:
        if request.compose is not None or request.services is not None:
            raise InvalidRequest("a teardown takes the decky's name and nothing else")
        return {}

    async def perform(self, work: Work) -> None:
        await work.remove()
