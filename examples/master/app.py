"""A master's HTTP side: accept an operation with 202, tell what became of it. Made to be copied.

    pip install decnet-reaper fastapi uvicorn
    uvicorn examples.master.app:app --timeout-graceful-shutdown 5

In the place of DECNET's own master it is `in_decnet.py`.

It keeps nothing in memory: what was accepted is a row in the store, so that this process may be killed and
started again at any time, and any number of them may run. Whoever may ask is for the application around it
to decide (DECNET's own authentication), as is how large a request may be.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException as StarletteHTTPException

from repo.base import OPEN
from repo.errors import StoreUnavailable
from repo.lifecycle import is_retry
from worker.client import InvalidDocument, InvalidRequest, LifecycleClient
from worker.logging.setup import configure

MAX_IDS = 200
LOOK_EVERY_S = 0.25

DeckyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
HostUuid = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Ids = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    Query(min_length=1, max_length=MAX_IDS, description="Lifecycle ids; the parameter is repeated."),
]
Follow = Annotated[
    bool,
    Query(
        description="Where a row was interrupted and is retried, answer with the retry's state: the row keeps"
        " its id and `started_at`, and `retry_id` names the retry."
    ),
]
Compose = dict[str, Any] | str
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Decky(BaseModel):
    """One decky to bring up, and its Compose document as an object or as YAML text."""

    model_config = ConfigDict(extra="forbid")
    name: DeckyName
    compose: Compose
    host_uuid: HostUuid | None = None


class Deploy(BaseModel):
    """Several deckies, as the wizard asks for them; each becomes a row of its own."""

    model_config = ConfigDict(extra="forbid")
    deckies: list[Decky] = Field(min_length=1, max_length=MAX_IDS)


class Mutate(BaseModel):
    """Either some of the services of the decky's document, or a new document."""

    model_config = ConfigDict(extra="forbid")
    services: list[str] | None = None
    compose: Compose | None = None
    host_uuid: HostUuid | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.services is None) == (self.compose is None):
            raise ValueError("a mutate takes either services or compose")
        return self


class Accepted(BaseModel):
    """Ids in the order of the deckies that were asked for. The same wish, still open, has the same id."""

    lifecycle_ids: list[str]


class Lifecycle(BaseModel):
    """What DECNET's wizard polls. The row's payload may hold secrets and is not among it.

    `retry_id` is the row that took its place after an interruption; with `follow` the last of them, whose
    state this is.
    """

    id: str
    decky_name: str
    host_uuid: str | None
    operation: Literal["deploy", "mutate", "teardown"]
    status: Literal["pending", "running", "succeeded", "failed"]
    error: str | None
    started_at: Moment
    updated_at: Moment
    completed_at: Moment | None
    retry_id: str | None


class Lifecycles(BaseModel):
    """The rows that were found."""

    rows: list[Lifecycle]


class Problem(BaseModel):
    """RFC 9457. `errors` says what is wrong with which part of the request, never what stood there."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []


def _problem(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {"description": description, "content": content}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with LifecycleClient() as client:
        configure(client.settings)  # lifecycle.accepted is logged by who accepts
        app.state.client = client
        yield


app = FastAPI(
    title="DECNET master",
    lifespan=_lifespan,
    responses={
        400: _problem("The body is not JSON."),
        422: _problem("The request can't be accepted; nothing was."),
        503: _problem("The store can't be used now. Asking again is safe."),
    },
)


def _client(request: Request) -> LifecycleClient:
    client: LifecycleClient = request.app.state.client
    return client


Client = Annotated[LifecycleClient, Depends(_client)]


@app.post("/deckies/deploy", status_code=202)
async def deploy(wanted: Deploy, client: Client, request: Request, response: Response) -> Accepted:
    """Accept a deploy of one or more deckies: all of them, or none."""
    for decky in wanted.deckies:
        client.check(decky.name, decky.compose)
    return _accepted(
        [await client.deploy(d.name, d.compose, host_uuid=d.host_uuid) for d in wanted.deckies],
        request,
        response,
    )


@app.post("/deckies/{name}/mutate", status_code=202)
async def mutate(
    name: Annotated[DeckyName, Path()], wanted: Mutate, client: Client, request: Request, response: Response
) -> Accepted:
    """Accept a change of the services that a decky exposes."""
    lifecycle_id = await client.mutate(
        name, services=wanted.services, compose=wanted.compose, host_uuid=wanted.host_uuid
    )
    return _accepted([lifecycle_id], request, response)


@app.post("/deckies/{name}/teardown", status_code=202)
async def teardown(
    name: Annotated[DeckyName, Path()],
    client: Client,
    request: Request,
    response: Response,
    host_uuid: HostUuid | None = None,
) -> Accepted:
    """Accept that a decky is taken down; nothing is deployed on it afterwards."""
    return _accepted([await client.teardown(name, host_uuid=host_uuid)], request, response)


def _accepted(ids: list[str], request: Request, response: Response) -> Accepted:
    where = request.app.url_path_for("lifecycle")
    response.headers["Location"] = f"{where}?{'&'.join(f'ids={lifecycle_id}' for lifecycle_id in ids)}"
    return Accepted(lifecycle_ids=ids)


@app.get("/deckies/lifecycle", response_model=Lifecycles)
async def lifecycle(ids: Ids, client: Client, follow: Follow = False) -> dict[str, Any]:
    """The rows with these ids, oldest first; unknown ids are left out."""
    return {"rows": await _rows(client, ids, follow=follow)}


async def _rows(client: LifecycleClient, ids: list[str], *, follow: bool) -> list[dict[str, Any]]:
    rows = await client.repository.get_lifecycle_by_ids(ids, payload=False)
    latest = {row["id"]: row for row in rows}
    looked_at = latest if follow else {}
    while retried := {row["retry_id"]: first for first, row in looked_at.items() if row["retry_id"]}:
        found = await client.repository.get_lifecycle_by_ids(retried, payload=False)
        repeats = [row for row in found if is_retry(row, of=latest[retried[row["id"]]])]
        looked_at = {retried[row["id"]]: row for row in repeats}
        latest = latest | looked_at
    return [_as_first(row, latest[row["id"]]) for row in rows]


def _as_first(row: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """What became of a row, under the name that its caller knows."""
    if row is last:
        return dict(row)
    return {**last, "id": row["id"], "started_at": row["started_at"], "retry_id": last["id"]}


@app.get("/deckies/lifecycle/events", response_class=EventSourceResponse)
async def events(ids: Ids, client: Client, follow: Follow = False) -> AsyncIterator[ServerSentEvent]:
    """The rows as server-sent events: each as it is now, then at each change; `end` when all have ended.

    A browser that lost the connection, or its master, asks again by itself and gets them as they are then.
    """
    told: dict[str, str] = {}
    while True:
        rows = await _rows(client, ids, follow=follow)
        for row in rows:
            if told.get(row["id"]) != row["updated_at"]:
                told[row["id"]] = row["updated_at"]
                yield ServerSentEvent(event="lifecycle", data=Lifecycle.model_validate(row))
        if not any(row["status"] in OPEN for row in rows):
            yield ServerSentEvent(event="end", data=len(rows))
            return
        await asyncio.sleep(LOOK_EVERY_S)


@app.exception_handler(RequestValidationError)
async def _malformed(_: Request, error: RequestValidationError) -> JSONResponse:
    # `input` is left out on purpose: a document may hold secrets
    errors = [
        {"pointer": "/".join(["#", *map(str, wrong["loc"])]), "detail": wrong["msg"]}
        for wrong in error.errors()
    ]
    return _refusal(422, "the request is malformed, see errors", errors=errors)


@app.exception_handler(InvalidRequest)
@app.exception_handler(InvalidDocument)
async def _refused(_: Request, error: Exception) -> JSONResponse:
    return _refusal(422, str(error))


@app.exception_handler(StoreUnavailable)
async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    return _refusal(503, str(error), {"Retry-After": "1"})


@app.exception_handler(StarletteHTTPException)
async def _http(_: Request, error: HTTPException) -> JSONResponse:
    return _refusal(error.status_code, str(error.detail), dict(error.headers or {}))


def _refusal(
    status: int,
    detail: str,
    headers: dict[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> JSONResponse:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])
    return JSONResponse(problem.model_dump(), status, headers, media_type="application/problem+json")
