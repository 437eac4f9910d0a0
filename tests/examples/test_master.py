"""The example master over real HTTP, beside a real worker: accepted, told, killed, and what it refuses."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fleet import HANG_GUARD_S, Daemon, Fleet

pytestmark = pytest.mark.anyio

COLUMNS = {
    *("id", "decky_name", "host_uuid", "operation", "status", "error"),
    *("started_at", "updated_at", "completed_at", "retry_id"),
}


class Master:
    """The example behind a listening socket of the test's own, which outlives each of its processes."""

    def __init__(self, fleet: Fleet, http: httpx.AsyncClient, listening: socket.socket) -> None:
        self.fleet = fleet
        self.http = http
        self._listening = listening

    async def start(self) -> Daemon:
        command = (
            *("-m", "uvicorn", "examples.master.app:app", "--no-access-log", "--log-level=warning"),
            f"--fd={self._listening.fileno()}",
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            env=self.fleet.environment,
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[self._listening.fileno()],
        )
        started = Daemon(process)
        self.fleet.daemons.append(started)
        return started

    async def deploy(self, *deckies: dict[str, Any]) -> httpx.Response:
        return await self.http.post("/deckies/deploy", json={"deckies": list(deckies)})

    async def events(self, location: str) -> AsyncGenerator[tuple[str, Any], None]:
        """What a browser's EventSource would be told, up to the end."""
        where = location.replace("?", "/events?")
        async with self.http.stream("GET", where) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            name = ""
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)

    async def ended(self, location: str) -> list[dict[str, Any]]:
        rows = [row async for event, row in self.events(location) if event == "lifecycle"]
        return list({row["id"]: row for row in rows}.values())


@pytest.fixture
async def master(fleet: Fleet) -> AsyncIterator[Master]:
    async with running_master(fleet) as master:
        yield master


@asynccontextmanager
async def running_master(fleet: Fleet) -> AsyncIterator[Master]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=HANG_GUARD_S) as http:
            master = Master(fleet, http, listening)
            await master.start()
            yield master


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found.keys() == {"type", "title", "status", "detail", "errors"}
    assert found["status"] == status
    return found


async def test_what_is_accepted_is_told_to_the_end(fleet: Fleet, master: Master) -> None:
    worker = await fleet.worker()
    gate = fleet.gate()
    document = fleet.document("decky-01", "ssh", "http", gate=gate)
    document["services"]["decky-01"]["environment"] = {"TOKEN": "hunter2"}
    other = {"name": "decky-02", "compose": json.dumps(fleet.document("decky-02")), "host_uuid": None}
    accepted = await master.deploy({"name": "decky-01", "compose": document}, other)
    assert accepted.status_code == 202
    ids = accepted.json()["lifecycle_ids"]
    assert accepted.headers["location"] == f"/deckies/lifecycle?ids={ids[0]}&ids={ids[1]}"
    told: list[str] = []
    async for event, row in master.events(accepted.headers["location"]):
        if event == "lifecycle" and row["decky_name"] == "decky-01":
            told.append(row["status"])
            if row["status"] == "running":
                gate.touch()
    assert told[-2:] == ["running", "succeeded"]
    response = await master.http.get(accepted.headers["location"])
    rows = response.json()["rows"]
    assert [(row["id"], row["status"]) for row in rows] == [(i, "succeeded") for i in ids]
    assert all(row.keys() == COLUMNS for row in rows)
    assert "hunter2" not in response.text

    accepted = await master.http.post("/deckies/decky-01/mutate", json={"services": ["ssh"]})
    assert accepted.status_code == 202
    [row] = await master.ended(accepted.headers["location"])
    assert (row["operation"], row["status"]) == ("mutate", "succeeded")
    await worker.log("lifecycle.succeeded", lifecycle_id=row["id"])


async def test_a_master_killed_between_accept_and_finish_loses_nothing(fleet: Fleet, master: Master) -> None:
    gated = {"name": "decky-01", "compose": fleet.document("decky-01", "ssh", gate=fleet.gate())}
    accepted = await master.deploy(gated)
    [lifecycle_id] = accepted.json()["lifecycle_ids"]
    await fleet.daemons[0].kill()

    second = await master.start()
    assert (await master.deploy(gated)).json() == accepted.json()  # whoever asks again is no second operation
    worker = await fleet.worker()
    await fleet.reaper()  # rings for what was accepted and not rung
    stream = master.events(accepted.headers["location"])
    await worker.log("lifecycle.running", lifecycle_id=lifecycle_id)
    while (await anext(stream))[1]["status"] != "running":
        pass
    await second.kill()
    with pytest.raises(httpx.RemoteProtocolError):
        await anext(stream)
    fleet.gate().touch()
    await worker.log("lifecycle.succeeded", lifecycle_id=lifecycle_id)

    await master.start()
    [row] = await master.ended(accepted.headers["location"])
    assert (row["id"], row["status"]) == (lifecycle_id, "succeeded")


async def test_who_follows_is_told_of_the_retry_under_the_first_id(fleet: Fleet, master: Master) -> None:
    worker = await fleet.worker()
    await fleet.reaper()
    accepted = await master.deploy(
        {"name": "decky-01", "compose": fleet.document("decky-01", gate=fleet.gate())}
    )
    [first] = accepted.json()["lifecycle_ids"]
    running = await worker.log("lifecycle.running", lifecycle_id=first)
    await worker.kill()
    second = await fleet.worker()
    retried = (await second.log("lifecycle.running"))["lifecycle_id"]

    where = accepted.headers["location"]
    [row] = (await master.http.get(where)).json()["rows"]
    assert (row["status"], row["retry_id"]) == ("failed", retried)
    [followed] = (await master.http.get(f"{where}&follow=1")).json()["rows"]
    assert followed["status"] == "running"
    assert followed["error"] is None
    assert (followed["id"], followed["retry_id"]) == (first, retried)
    assert followed["started_at"] == row["started_at"]

    fleet.gate().touch()
    [ended] = await master.ended(f"{where}&follow=1")
    assert (ended["id"], ended["status"], ended["retry_id"]) == (first, "succeeded", retried)
    assert running["decky_name"] == ended["decky_name"]


async def test_bad_input_is_a_problem_that_repeats_no_secret(fleet: Fleet, master: Master) -> None:
    good = {"name": "decky-01", "compose": fleet.document("decky-01")}
    secret = {"services": {"decky-02": {"environment": {"TOKEN": "hunter2"}}, "x": "hunter2"}}
    post = master.http.post
    body: Any
    for body in (
        {},
        {"deckies": []},
        {"deckies": [{"name": "Decky", "compose": "hunter2"}]},
        {"deckies": [good, {"name": "decky-02", "compose": secret}]},
        {"deckies": [{**good, "compose": "services: [hunter2"}]},
        {"deckies": [{**good, "colour": "hunter2"}]},
        [good] * 2,
    ):
        response = await post("/deckies/deploy", json=body)
        assert "hunter2" not in str(problem(response, 422))
    never = await post("/deckies/decky-01/mutate", json={"services": ["ssh"]})
    assert "never been deployed" in problem(never, 422)["detail"]
    both = problem(await post("/deckies/decky-01/mutate", json={}), 422)
    assert "either services or compose" in both["errors"][0]["detail"]
    for count in (0, 201):
        many = await master.http.get("/deckies/lifecycle", params={"ids": ["x"] * count})
        assert problem(many, 422)["errors"][0]["pointer"] == "#/query/ids"
    assert (await master.http.get("/deckies/lifecycle", params={"ids": ["x"] * 200})).json() == {"rows": []}
    problem(await master.http.get("/nowhere"), 404)
    assert problem(await master.http.get("/deckies/deploy"), 405)["title"] == "Method Not Allowed"
    async with fleet.client() as client:
        assert await client.repository.list_lifecycles() == []


async def test_several_deckies_are_accepted_or_none(fleet: Fleet) -> None:
    fleet.set(document_policy="decnet")
    plain = {"name": "decky-01", "compose": {"services": {"decky-01": {"image": "x"}}}}
    root = {"name": "decky-02", "compose": {"services": {"decky-02": {"image": "x", "privileged": True}}}}
    async with running_master(fleet) as master:
        refused = problem(await master.deploy(plain, root), 422)
    assert "privileged is refused by the document policy decnet" in refused["detail"]
    async with fleet.client() as client:
        assert await client.repository.list_lifecycles() == []


async def test_who_looks_at_rows_loads_no_document(fleet: Fleet, master: Master) -> None:
    document = {"services": {"decky-01": {"environment": {"FILLER": "x" * (1 << 20)}}}}
    async with fleet.client() as client:
        wish = {"operation": "deploy", "payload": {"compose": document}}
        created = [client.repository.create_lifecycle({"decky_name": f"d{n}", **wish}) for n in range(40)]
        ids = list(await asyncio.gather(*created))
    where = f"/deckies/lifecycle?ids={'&ids='.join(ids)}"
    assert len((await master.http.get("/deckies/lifecycle?ids=x")).json()["rows"]) == 0
    before = peak_memory(fleet.daemons[0])

    async def look() -> None:
        async with aclosing(master.events(where)) as stream:
            for _ in ids:
                await anext(stream)

    await asyncio.gather(*[look() for _ in range(5)])
    assert len((await master.http.get(where)).json()["rows"]) == 40
    assert peak_memory(fleet.daemons[0]) - before < 40 << 20, "more than the documents themselves"


def peak_memory(daemon: Daemon) -> int:
    """The most that it ever had resident, in bytes."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) << 10


async def test_a_store_that_is_gone_is_a_503(fleet: Fleet, master: Master) -> None:
    assert (await master.http.get("/deckies/lifecycle?ids=x")).status_code == 200
    (fleet.root / "state" / "decnet-reaper.db").unlink()
    response = await master.deploy({"name": "decky-01", "compose": fleet.document("decky-01")})
    assert "was deleted" in problem(response, 503)["detail"]
    assert response.headers["retry-after"] == "1"


async def test_its_openapi_holds_under_schemathesis(fleet: Fleet, master: Master) -> None:
    # A document that fits the schema may still be no decky's, so a 422 for good-looking input is right.
    # One worker: ast.parse(), which hypothesis calls, isn't thread-safe before Python 3.13 (cpython#106905).
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{master.http.base_url}/openapi.json"),
        *("--checks=all", "--exclude-checks=positive_data_acceptance", "--max-examples=5", "--seed=1"),
        *("--phases=coverage,fuzzing", "--generation-database=none", "--no-color"),
        *("--request-timeout=20", "--wait-for-schema=30", "--workers=1"),
        cwd=fleet.root,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(2 * HANG_GUARD_S):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def test_a_decky_is_taken_down(master: Master) -> None:
    await master.fleet.worker()
    deployed = await master.deploy({"name": "decky-01", "compose": master.fleet.document("decky-01", "ssh")})
    await master.ended(deployed.headers["location"])
    accepted = await master.http.post("/deckies/decky-01/teardown")
    assert accepted.status_code == 202
    [row] = await master.ended(accepted.headers["location"])
    assert (row["operation"], row["status"]) == ("teardown", "succeeded")
    refused = await master.http.post("/deckies/decky-01/mutate", json={"services": ["ssh"]})
    assert refused.status_code == 422
    assert "torn down" in refused.json()["detail"]
