"""The main path on a real Docker engine: real daemons, the real command, containers that answer."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from repo.base import Lifecycle
from tests.support.audit import audit
from tests.support.fleet import Fleet, running_fleet, wait_status
from tests.support.machine.docker_engine import ComposeDecky
from tests.support.programs.terminal import Terminal

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
async def engine(compose_decky: ComposeDecky) -> AsyncIterator[Fleet]:
    async with running_fleet(runtime="compose") as fleet:
        yield fleet


async def operate(
    fleet: Fleet, *arguments: str, document: dict[str, Any] | None = None
) -> tuple[int, Lifecycle]:
    """Run a command to the end of its operation; the exit status and the row."""
    compose = ["--compose", "-"] if document else []
    stdin = json.dumps(document).encode()
    status, out, err = await fleet.run(*arguments, *compose, "--wait", "--json", stdin=stdin)
    assert status in {0, 1}, err
    return status, json.loads(out)


async def test_deploy_mutate_fail_and_come_back(engine: Fleet, compose_decky: ComposeDecky) -> None:
    decky, name = compose_decky, compose_decky.name
    await engine.worker()
    await engine.reaper()

    status, row = await operate(engine, "deploy", name, document=decky.document("http", "ssh"))
    assert (status, row["status"], row["error"]) == (0, "succeeded", None)
    first = decky.containers()
    assert set(first) == {name, f"{name}-http", f"{name}-ssh"}
    assert "a decoy" in await decky.answer(80, b"GET /index.html HTTP/1.0\r\n\r\n")
    assert "SSH-2.0" in await decky.answer(22)

    status, row = await operate(engine, "mutate", name, "--services", "ssh")
    assert (status, row["status"]) == (0, "succeeded")
    assert decky.containers() == {service: first[service] for service in (name, f"{name}-ssh")}

    broken = decky.document("ssh", "web", command=["sh", "-c", "echo no certificate; exit 4"])
    status, row = await operate(engine, "mutate", name, document=broken)
    assert (status, row["status"]) == (1, "failed")
    assert "no certificate" in (row["error"] or "")
    assert "exited with status 4" in (row["error"] or "")
    assert "the previous services were brought back" in (row["error"] or "")
    assert set(decky.containers()) == {name, f"{name}-ssh"}
    assert decky.containers()[name] == first[name]
    assert "SSH-2.0" in await decky.answer(22)

    async with engine.client() as client:
        rows = await client.repository.list_lifecycles()
        assert [(row["operation"], row["status"]) for row in rows] == [
            ("mutate", "failed"),
            ("mutate", "succeeded"),
            ("deploy", "succeeded"),
        ]


async def test_what_compose_does_is_seen_by_who_waits(engine: Fleet, compose_decky: ComposeDecky) -> None:
    gate = engine.root / "gate"
    gate.mkdir()
    check = {"test": ["CMD", "test", "-e", "/go/on"], "interval": "200ms", "retries": 100_000}
    document = compose_decky.document("http", healthcheck=check, volumes=[f"{gate}:/go:ro"])
    file = engine.root / "decky.json"
    file.write_text(json.dumps(document))
    await engine.worker()
    deploy = ["deploy", compose_decky.name, "--compose", str(file), "--wait"]
    async with Terminal(engine, *deploy, columns=160) as terminal:
        await terminal.shows(f"running  {compose_decky.name}-http Waiting")
        (gate / "on").touch()
        assert await terminal.ended() == 0
        last = terminal.text.strip().splitlines()[-1]
        assert f"deploy of {compose_decky.name} succeeded (" in last


async def test_a_worker_killed_in_the_middle_of_up_is_found_out_and_its_operation_repeated(
    engine: Fleet, compose_decky: ComposeDecky
) -> None:
    decky = compose_decky
    slow = decky.document("http")
    check = slow["services"][f"{decky.name}-http"]["healthcheck"]
    check["test"] = ["CMD", "test", "-e", "/go/on"]
    gate = engine.root / "gate"
    gate.mkdir()
    slow["services"][f"{decky.name}-http"]["volumes"] = [f"{gate}:/go:ro"]
    reaper = await engine.reaper()
    first = await engine.worker()
    async with engine.client() as client:
        started = await decky.started(f"{decky.name}-http")
        lost = await client.deploy(decky.name, slow)
        await started
        second = await engine.worker()
        await first.kill()
        row = await client.wait(lost, timeout=60)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation")
        retry_id = (await reaper.log("lifecycle.swept", lifecycle_id=lost))["retry_id"]
        await wait_status(client, retry_id, "running")
        (gate / "on").touch()
        row = await client.wait(retry_id, timeout=120)
        assert (row["status"], row["attempt"]) == ("succeeded", 2)
        assert f"/{second.pid}/" in (row["owner"] or "")
        await audit(engine, client)


async def test_cancel_of_a_running_up_ends_it(engine: Fleet, compose_decky: ComposeDecky) -> None:
    document = compose_decky.document(
        "http", healthcheck={"test": ["CMD", "false"], "interval": "200ms", "retries": 100_000}
    )
    await engine.worker()
    async with engine.client() as client:
        started = await compose_decky.started(f"{compose_decky.name}-http")
        lifecycle_id = await client.deploy(compose_decky.name, document)
        await started
        row = await client.cancel(lifecycle_id)
        assert (row["status"], row["error"]) == ("failed", "cancelled by operator")
        again = await client.deploy(compose_decky.name, compose_decky.document("ssh"))
        assert (await client.wait(again, timeout=120))["status"] == "succeeded"
        assert set(compose_decky.containers()) == {compose_decky.name, f"{compose_decky.name}-ssh"}
