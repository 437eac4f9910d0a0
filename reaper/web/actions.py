"""Cancel, retry and teardown from the page: who may, what is refused, and that it is told.

A request must bear a token in a header that no form, link or image of another site can set, and must come
from the page itself, as the browser says. The token is in no address, no cookie and no log.
"""

import contextlib
import hmac
import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from repo.base import Lifecycle
from repo.errors import DecnetReaperError
from repo.settings import SettingsError
from worker.client import LifecycleClient
from worker.logging.console import printable
from worker.logging.emit import emit

ACTIONS: Final = ("cancel", "retry", "teardown")
TOKEN_HEADER: Final = "x-decnet-token"  # noqa: S105
"""Not Authorization, which a proxy's own login takes."""

_TOKEN: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._@-]{0,63}):(\S{24,256})")
_CANCEL_S: Final = 1.0
"""Seconds that the page waits for a running operation to end; it goes on ending."""


def tokens_of(text: str) -> list[tuple[str, str]]:
    """Names and tokens; a name may have several.

    Args:
        text: the setting `web_tokens`.

    Raises:
        SettingsError: there is none, or a line can't be used. No token is repeated.
    """
    found = []
    for number, line in enumerate(text.split(), 1):
        if (match := _TOKEN.fullmatch(line)) is None:
            raise SettingsError(
                f"the setting web_tokens can't be used: its entry {number} is not NAME:TOKEN with a token of"
                " 24 to 256 characters; `openssl rand -hex 24` makes one"
            )
        found.append((match[1], match[2]))
    if not found:
        raise SettingsError(
            "--actions needs the setting web_tokens, NAME:TOKEN for each who may act; better the credential"
            " /etc/credstore/decnet-reaper.web_tokens"
        )
    return found


class Actions:
    """What the page may do.

    Args:
        client: what it is done by.
        tokens: who may: names and tokens.
    """

    def __init__(self, client: LifecycleClient, tokens: Sequence[tuple[str, str]]) -> None:
        self._client = client
        self._tokens = tokens

    async def act(self, request: Request, action: str, lifecycle_id: str) -> dict[str, Any]:
        """Do what a request asks for.

        Returns:
            `row`: the id of the row to look at.

        Raises:
            HTTPException: nothing was done.
        """
        address, forwarded_for = _origin(request)
        try:
            who = self._who(request)
            row = await self._client.get(lifecycle_id)
            to_look_at = await self._do(action, row)
        except (HTTPException, DecnetReaperError) as error:
            refusal = error if isinstance(error, HTTPException) else HTTPException(409, str(error))
            emit(
                "web.refused",
                lifecycle_id=printable(lifecycle_id)[:64],
                action=printable(action)[:16],
                reason=refusal.detail,
                address=address,
                forwarded_for=forwarded_for,
            )
            raise refusal from None
        emit("web.acted", row, action=action, who=who, address=address, forwarded_for=forwarded_for)
        return {"row": to_look_at}

    def _who(self, request: Request) -> str:
        headers = request.headers
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise HTTPException(403, "this was asked by another site")
        if headers.get("origin", "").partition("://")[2] != headers.get("host"):
            raise HTTPException(403, "this was asked by another origin than the page's")
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            raise HTTPException(415, "this was not asked by the page: its requests are JSON")
        given = headers.get(TOKEN_HEADER, "").encode()
        # All are compared, so that the time tells nothing.
        fits = [name for name, token in self._tokens if hmac.compare_digest(given, token.encode())]
        if not fits:
            raise HTTPException(401, "this token is not known here")
        return fits[0]

    async def _do(self, action: str, row: Lifecycle) -> str:
        """Do it; the id of the row to look at."""
        if action not in ACTIONS:
            raise HTTPException(404, f"there is no action {action}")
        if action == "retry":
            return await self._client.retry(row["id"])
        if action == "teardown":
            return await self._client.teardown(row["decky_name"], host_uuid=row["host_uuid"])
        with contextlib.suppress(TimeoutError):
            await self._client.cancel(row["id"], _CANCEL_S)
        return row["id"]


def _origin(request: Request) -> tuple[str, str | None]:
    """The address of the connection, and whence the request says that it came to the proxy.

    The second may say whatever it likes where somebody reaches the page without a proxy.
    """
    forwarded = request.headers.get("x-forwarded-for")
    return (
        request.client.host if request.client and request.client.host else "unix",
        None if forwarded is None else printable(forwarded)[:200],
    )
