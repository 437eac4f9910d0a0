"""DECNET's master with our rows behind its routes: the same paths, bodies and errors. Made to be copied.

    /opt/decnet/bin/pip install decnet_reaper-0.1.0-py3-none-any.whl
    /opt/decnet/bin/uvicorn examples.master.in_decnet:app

It is DECNET's application, with these of its routes taken over, so that its login, its limits and its way to
answer what is malformed apply to them:

    POST   /api/v1/deckies/deploy            202: message, mode, lifecycle_ids; 409
    POST   /api/v1/deckies/{name}/mutate     202: lifecycle_ids; 404, 409
    DELETE /api/v1/deckies/{name}            204, when it is down; 404, 504
    GET    /api/v1/deckies/lifecycle         200: rows; with follow=1 each row tells of its retry
    GET    /api/v1/deckies/lifecycle/events  the same as server-sent events

An error's body is {"detail": TEXT}; 503 says that the store can't be used now.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import structlog
from decnet.web.api import app
from decnet.web.db.models import DeployIniRequest, DeployResponse, LifecycleAcceptedResponse
from decnet.web.dependencies import repo, require_admin, require_viewer
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse

from examples.master import decnet_fleet
from examples.master.app import Client, DeckyName, Lifecycles, events, lifecycle
from repo.errors import StoreUnavailable
from worker.client import InvalidDocument, InvalidRequest, LifecycleClient

TEARDOWN_S = 60
"""How long the dashboard is kept waiting for a teardown. The teardown itself goes on."""

Name = Annotated[DeckyName, Path()]

router = APIRouter(prefix="/api/v1/deckies", tags=["Fleet Management"])
_admin = [Depends(require_admin)]
_viewer = [Depends(require_viewer)]
_said: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is malformed"},
    401: {"description": "Could not validate credentials"},
    403: {"description": "Insufficient permissions"},
    404: {"description": "No active deployment, or no such decky"},
    409: {"description": "It conflicts with the fleet as it is"},
    422: {"description": "Validation error"},
    503: {"description": "The store can't be used now"},
}


@router.post("/deploy", status_code=202, dependencies=_admin, responses=_said)
async def deploy(wanted: DeployIniRequest, client: Client) -> DeployResponse:
    """Accept a deploy of the INI file's deckies; what the wizard polls are the rows of these."""
    plan = await decnet_fleet.plan(wanted.ini_content, replace=wanted.replace_fleet)
    documents = {decky.name: decnet_fleet.document(plan.config, decky) for decky in plan.wanted}
    for name, document in documents.items():
        client.check(name, document)
    # DECNET's record is written first, since its engine reads it: not while no row could be.
    await client.repository.list_lifecycles(limit=1)
    await decnet_fleet.record(plan.config, plan.gone)
    for decky in plan.gone:
        await client.teardown(decky.name, host_uuid=decky.host_uuid)
    ids = [await client.deploy(d.name, documents[d.name], host_uuid=d.host_uuid) for d in plan.wanted]
    gone = f"; taken down: {', '.join(decky.name for decky in plan.gone)}" if plan.gone else ""
    message = f"Deploy accepted ({len(ids)} decky/ies, mode={plan.config.mode}){gone}"
    return DeployResponse(message=message, mode=plan.config.mode, lifecycle_ids=ids)


@router.post("/{decky_name}/mutate", status_code=202, dependencies=_admin, responses=_said)
async def mutate(decky_name: Name, client: Client) -> LifecycleAcceptedResponse:
    """Accept a mutate: DECNET picks the services."""
    config, decky = await decnet_fleet.mutated(decky_name)
    document = decnet_fleet.document(config, decky)
    lifecycle_id = await client.mutate(decky_name, compose=document, host_uuid=decky.host_uuid)
    await decnet_fleet.record(config, [])
    return LifecycleAcceptedResponse(lifecycle_ids=[lifecycle_id])


@router.delete(
    "/{decky_name}",
    status_code=204,
    dependencies=_admin,
    responses=_said | {504: {"description": "It is still being taken down; ask again"}},
)
async def teardown(decky_name: Name, client: Client) -> None:
    """Take a decky down, and answer when it is."""
    config, decky = await decnet_fleet.find(decky_name)
    lifecycle_id = await client.teardown(decky_name, host_uuid=decky.host_uuid)
    try:
        row = await client.wait(lifecycle_id, TEARDOWN_S, follow=True)
    except TimeoutError:
        raise HTTPException(
            504, f"{decky_name} is still being taken down (lifecycle {lifecycle_id})"
        ) from None
    if row["status"] == "failed":
        raise HTTPException(500, f"{decky_name} could not be taken down: {row['error']}")
    await decnet_fleet.forget(config, decky)


router.add_api_route(
    "/lifecycle", lifecycle, response_model=Lifecycles, dependencies=_viewer, responses=_said
)
router.add_api_route(
    "/lifecycle/events", events, response_class=EventSourceResponse, dependencies=_viewer, responses=_said
)


async def _conflict(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 409)


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


async def _reaper_does_it(older_than: datetime, reason: str) -> int:
    return 0


def take_over(app: FastAPI) -> None:
    """Put our routes before DECNET's, and open the store with DECNET's application."""
    theirs = list(app.router.routes)
    app.include_router(router)
    app.router.routes[:] = [*app.router.routes[len(theirs) :], *theirs]  # the first that fits answers
    for refused in (InvalidRequest, InvalidDocument):
        app.add_exception_handler(refused, _conflict)
    app.add_exception_handler(StoreUnavailable, _unavailable)
    repo.sweep_stale_lifecycle = _reaper_does_it  # at the start, of whatever waits for longer than an hour
    starts = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with LifecycleClient() as client, starts(app):
            app.state.client = client
            yield

    app.router.lifespan_context = lifespan


# Where DECNET's records go, so that what is accepted is in its log.
structlog.configure(
    processors=[
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
take_over(app)
