"""The example master in the place of DECNET's own: DECNET's application, login and record, our rows."""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.decnet.engine import Decnet
from tests.support.fleet import HANG_GUARD_S, Daemon, Fleet, running_fleet

pytestmark = pytest.mark.anyio

INI = """
[general]
net=172.31.77.0/24
gw=172.31.77.1
interface=lo

[{name}]
ip={ip}
services=web,mail
"""
FIRST = INI.format(name="decky-01", ip="172.31.77.20")
SECOND = INI.format(name="decky-02", ip="172.31.77.21")

PROGRAM = """#!/bin/sh
echo "$1 $2 $(shift 3; echo "$@" | tr ' ' '\\n' | sort | tr '\\n' ' ')" >>{log}
test ! -e {broken} || {{ echo "no such image"; exit 1; }}
"""


@pytest.fixture
def decnet(tmp_path: Path) -> Decnet:
    return Decnet(tmp_path / "decnet", "decoy")


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Its runtime is a program that notes what it is called for."""
    async with running_fleet(runtime="command") as fleet:
        program = fleet.root / "program"
        program.write_text(PROGRAM.format(log=fleet.root / "calls", broken=fleet.root / "broken"))
        program.chmod(0o700)
        yield fleet.set(runtime_command=str(program))


class Dashboard:
    """What DECNET's dashboard and wizard do, as an administrator who has logged in."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def log_in(self) -> None:
        first, then = "A-test-s-Password-1", "A-test-s-Password-2"
        await self._log_in(first)
        changed = await self.http.post(
            "/auth/change-password", json={"old_password": first, "new_password": then}
        )
        assert changed.status_code == 200, changed.text
        await self._log_in(then)

    async def _log_in(self, password: str) -> None:
        answer = await self.http.post("/auth/login", json={"username": "admin", "password": password})
        assert answer.status_code == 200, answer.text
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    async def deploy(self, ini_content: str, *, replace_fleet: bool = False) -> httpx.Response:
        wanted = {"ini_content": ini_content, "replace_fleet": replace_fleet}
        return await self.http.post("/deckies/deploy", json=wanted)

    async def ended(self, accepted: httpx.Response) -> list[dict[str, Any]]:
        """The rows of what was accepted, when the last of them has ended."""
        assert accepted.status_code == 202, accepted.text
        ids = accepted.json()["lifecycle_ids"]
        async with self.http.stream("GET", "/deckies/lifecycle/events", params={"ids": ids}) as stream:
            async for line in stream.aiter_lines():
                if line == "event: end":
                    break
        rows: list[dict[str, Any]] = (
            await self.http.get("/deckies/lifecycle", params={"ids": ids, "follow": 1})
        ).json()["rows"]
        assert [row["id"] for row in rows] == ids
        return rows


@pytest.fixture
async def dashboard(fleet: Fleet, decnet: Decnet) -> AsyncIterator[Dashboard]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = await asyncio.create_subprocess_exec(
            *(*decnet.python, "-m", "uvicorn", "examples.master.in_decnet:app", "--log-level=warning"),
            f"--fd={listening.fileno()}",
            cwd=decnet.directory,
            env=fleet.environment | {"DECNET_CONTRACT_TEST": "true", "DECNET_BUS_ENABLED": "false"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[listening.fileno()],
        )
        fleet.daemons.append(Daemon(process))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1"
        async with httpx.AsyncClient(base_url=url, timeout=HANG_GUARD_S) as http:
            dashboard = Dashboard(http)
            await dashboard.log_in()
            yield dashboard


def recorded(decnet: Decnet) -> dict[str, set[str]]:
    """The deckies in DECNET's own database, which its pages show, and their services."""
    with closing(sqlite3.connect(decnet.directory / "decnet.db")) as database:
        return {
            name: set(json.loads(s))
            for name, s in database.execute("SELECT name, services FROM fleet_deckies")
        }


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


async def test_a_wizard_and_a_dashboard_find_what_they_expect(
    fleet: Fleet, decnet: Decnet, dashboard: Dashboard
) -> None:
    await fleet.worker()
    assert (
        refused(await dashboard.http.post("/deckies/decky-01/mutate", json={}), 404) == "No active deployment"
    )
    assert "Bad Request" in refused(await dashboard.http.post("/deckies/deploy", json={"ini": ""}), 400)
    assert "telnot" in refused(await dashboard.deploy(FIRST.replace("web,mail", "telnot")), 409)

    accepted = await dashboard.deploy(FIRST)
    answer = accepted.json()
    assert answer.keys() == {"message", "mode", "lifecycle_ids"}
    assert (answer["mode"], len(answer["lifecycle_ids"])) == ("unihost", 1)
    [row] = await dashboard.ended(accepted)
    assert (row["decky_name"], row["operation"], row["status"]) == ("decky-01", "deploy", "succeeded")
    assert recorded(decnet) == {"decky-01": {"web", "mail"}}
    assert [row["name"] for row in (await dashboard.http.get("/deckies")).json()] == ["decky-01"]

    assert "already exists" in refused(await dashboard.deploy(FIRST), 409)
    assert "172.31.77.20 is already in use" in refused(
        await dashboard.deploy(SECOND.replace("172.31.77.21", "172.31.77.20")), 409
    )
    assert "decky-09 not found" in refused(await dashboard.http.post("/deckies/decky-09/mutate"), 404)

    [row] = await dashboard.ended(await dashboard.http.post("/deckies/decky-01/mutate", json={}))
    assert (row["operation"], row["status"]) == ("mutate", "succeeded")
    services = recorded(decnet)["decky-01"]
    mutated = (fleet.root / "calls").read_text().splitlines()[-1].split()
    assert mutated == [
        "mutate",
        "decky-01",
        *sorted(["decky-01", *(f"decky-01-{name}" for name in services)]),
    ]

    assert (await dashboard.http.delete("/deckies/decky-01")).status_code == 204
    assert recorded(decnet) == {}
    assert refused(await dashboard.http.delete("/deckies/decky-01"), 404) == "No active deployment"
    del dashboard.http.headers["Authorization"]
    assert (await dashboard.deploy(FIRST)).status_code == 401
    assert (await dashboard.http.get("/deckies/lifecycle", params={"ids": "x"})).status_code == 401


async def test_a_fleet_is_replaced_and_what_failed_is_said(
    fleet: Fleet, decnet: Decnet, dashboard: Dashboard
) -> None:
    await fleet.worker()
    await dashboard.ended(await dashboard.deploy(FIRST))
    replaced = await dashboard.deploy(SECOND, replace_fleet=True)
    [row] = await dashboard.ended(replaced)
    assert (row["decky_name"], row["status"]) == ("decky-02", "succeeded")
    assert "taken down: decky-01" in replaced.json()["message"]
    async with fleet.client() as client:
        [down, _] = await client.repository.list_lifecycles(decky_name="decky-01")
        assert (await client.wait(down["id"], HANG_GUARD_S))["operation"] == "teardown"
    assert recorded(decnet).keys() == {"decky-02"}

    (fleet.root / "broken").touch()
    assert "could not be taken down: no such image" in refused(
        await dashboard.http.delete("/deckies/decky-02"), 500
    )
    assert recorded(decnet).keys() == {"decky-02"}
    [row] = await dashboard.ended(await dashboard.deploy(SECOND, replace_fleet=True))
    assert (row["status"], row["error"]) == ("failed", "no such image")

    (fleet.root / "state" / "decnet-reaper.db").unlink()
    assert "was deleted" in refused(await dashboard.deploy(FIRST), 503)
    assert recorded(decnet).keys() == {"decky-02"}  # so that asking again is no conflict


SHAPES = """
import json

from decnet.web.api import app

theirs = app.openapi()

from fastapi import FastAPI
from examples.master.in_decnet import router

ours = FastAPI()
ours.include_router(router)
print(json.dumps([theirs, ours.openapi()]))
"""


def resolved(schema: Any, whole: dict[str, Any]) -> Any:
    """A schema with what it refers to in its place, without what only people read."""
    if isinstance(schema, list):
        return [resolved(part, whole) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolved(whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]], whole)
    read_by_people = ("title", "description")
    return {key: resolved(part, whole) for key, part in schema.items() if key not in read_by_people}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/api/v1/deckies/deploy"),
        ("post", "/api/v1/deckies/{decky_name}/mutate"),
        ("delete", "/api/v1/deckies/{decky_name}"),
        ("get", "/api/v1/deckies/lifecycle"),
    ],
)
def test_its_schema_has_the_shapes_of_decnets(schemas: list[dict[str, Any]], method: str, path: str) -> None:
    theirs, ours = (resolved(whole["paths"][path][method], whole) for whole in schemas)
    assert ours.get("requestBody") == theirs.get("requestBody")
    assert ours["responses"].keys() >= theirs["responses"].keys()
    for status in ("200", "202"):
        if status in theirs["responses"]:
            fits(content(ours, status), content(theirs, status))
    mine = {parameter["name"]: parameter for parameter in ours["parameters"]} if "parameters" in ours else {}
    for parameter in theirs.get("parameters", ()):
        found = mine.pop(parameter["name"])
        assert (found["in"], found["required"]) == (parameter["in"], parameter["required"])
        assert found["schema"]["type"] == parameter["schema"]["type"]
    assert not any(parameter["required"] for parameter in mine.values())


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """DECNET's OpenAPI, and that of our routes."""
    decnet = Decnet(tmp_path_factory.mktemp("decnet") / "decnet", "decoy")
    done = subprocess.run(
        [*decnet.python, "-c", SHAPES],
        cwd=decnet.directory,
        env=os.environ | {"DECNET_REAPER_STATE_DIR": str(decnet.directory / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def content(operation: dict[str, Any], status: str) -> Any:
    return operation["responses"][status]["content"]["application/json"]["schema"]


def fits(ours: Any, theirs: Any) -> None:
    """Whoever reads theirs can read ours: each property is there, of a type that theirs may have."""
    for name, wanted in theirs.get("properties", {}).items():
        fits(ours["properties"][name], wanted)
    if "items" in theirs:
        fits(ours["items"], theirs["items"])
    assert kinds(ours) <= kinds(theirs)


def kinds(schema: Any) -> set[tuple[str, str | None]]:
    return {(kind["type"], kind.get("format")) for kind in schema.get("anyOf", [schema])}
