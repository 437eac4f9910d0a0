"""The page's addresses, and what every answer says of itself.

The page is text, style and script of ours; what it shows comes as JSON, and becomes text and never markup.
The browser is told to load, run and embed nothing else, whatever a document or an error says.
"""

import json
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any, Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reaper.web.actions import Actions
from reaper.web.overview import overview
from reaper.web.selection import Selection
from reaper.web.story import story
from reaper.web.watcher import Watcher
from repo.base import ID

STATIC: Final = Path(__file__).parent / "static"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_RETRY_MS: Final = 1000
_SEND_TIMEOUT_S: Final = 30.0


def build(
    watcher: Watcher, *, operation_timeout: float, names: Collection[str], actions: Actions | None
) -> Starlette:
    """The application.

    Args:
        watcher: what goes on.
        operation_timeout: seconds that an operation may take.
        names: hosts under which browsers may ask for it: another name that leads here is somebody's trick.
        actions: what it may do; None for nothing.
    """

    async def page(_: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def fleet(request: Request) -> Response:
        selection = Selection.of(request.query_params)
        return _stream(overview(watcher, selection, operation_timeout=operation_timeout))

    async def row(request: Request) -> Response:
        lifecycle_id = request.path_params["id"]
        if not ID.fullmatch(lifecycle_id):
            raise HTTPException(404, "that can't be an id")
        return _stream(
            story(watcher, lifecycle_id, operation_timeout=operation_timeout, may_act=actions is not None)
        )

    async def act(request: Request) -> Response:
        assert actions is not None  # noqa: S101
        return JSONResponse(
            await actions.act(request, request.path_params["action"], request.path_params["id"])
        )

    routes: list[BaseRoute] = [
        Route("/", page),
        Route("/row/{id}", page),
        Route("/events", fleet),
        Route("/events/{id}", row),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    if actions is not None:
        routes.append(Route("/row/{id}/{action}", act, methods=["POST"]))
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, names=names)],
        exception_handlers={HTTPException: _refused},
    )


class Guard:
    """Refuses names that are not ours, and adds the headers.

    Args:
        app: what is guarded.
        names: hosts that may be asked for.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        asked = _without_port(Headers(scope=scope).get("host", ""))
        if asked not in self._names:
            refusal = PlainTextResponse(
                "This page does not answer to that name. Start it with --name to have it do so.\n", 421
            )
            await refusal(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()


def _stream(states: AsyncIterator[dict[str, Any]]) -> Response:
    async def events() -> AsyncIterator[ServerSentEvent]:
        async for state in states:
            yield ServerSentEvent(json.dumps(state), retry=_RETRY_MS)

    return EventSourceResponse(events(), send_timeout=_SEND_TIMEOUT_S, sep="\n")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
