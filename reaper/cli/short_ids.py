"""Ids as people give them: whole, or by their last eight characters, as tables and the log print them."""

from collections.abc import Sequence

from repo.base import BaseRepository
from repo.errors import InvalidLifecycle

_SHORT = 8
_NEWEST = 5000


async def whole_ids(repository: BaseRepository, given: Sequence[str]) -> list[str]:
    """The whole ids; what is no end of one among the newest rows stays as it is.

    Raises:
        InvalidLifecycle: several of the newest rows end so.
    """
    known = {row["id"] for row in await repository.get_lifecycle_by_ids(given)}
    if all(text in known or len(text) < _SHORT for text in given):
        return list(given)
    newest = [row["id"] for row in await repository.list_lifecycles(limit=_NEWEST)]
    return [text if text in known else _ending(text, newest) for text in given]


def _ending(text: str, ids: Sequence[str]) -> str:
    found = [lifecycle_id for lifecycle_id in ids if len(text) >= _SHORT and lifecycle_id.endswith(text)]
    if len(found) > 1:
        raise InvalidLifecycle(f"{text} is the end of several ids: {', '.join(found[:5])}; give more of it")
    return found[0] if found else text
