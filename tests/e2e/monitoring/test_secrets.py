"""No secret and no document in the log, whatever fails, at the most talkative level."""

import sys

import pytest
from redis.asyncio import Redis

from tests.support.fleet import CLIENT_LOG, running_fleet
from worker.client import LifecycleClient

pytestmark = pytest.mark.anyio

PLANTED = "planted-secret"
# Compose that says too much: it prints the document and its services' variables, and then fails.
TALKATIVE = """
import json, sys
if "version" in sys.argv:
    print("2.40.3")
elif "up" in sys.argv:
    document = json.load(open(sys.argv[sys.argv.index("--file") + 1]))
    for name, service in document["services"].items():
        print(f"{name}: {service['environment']} cannot log in to https://me:%s@registry" % "planted-secret")
    sys.exit(18)
"""


async def test_planted_secrets_are_in_no_line_and_in_no_error() -> None:
    async with running_fleet(runtime="compose", log_level="debug", max_attempts="1") as fleet:
        stand_in = fleet.root / "compose.py"
        stand_in.write_text(TALKATIVE)
        fleet.set(
            compose_command=f"{sys.executable} {stand_in}", redis=f"unix://{fleet.socket}?password={PLANTED}"
        )
        async with Redis(unix_socket_path=str(fleet.socket)) as connection:
            await connection.config_set("requirepass", PLANTED)
        document = fleet.document("decky-01")
        document["services"]["decky-01"] |= {
            "environment": {"ROOT_PASSWORD": PLANTED, "MODE": "honeypot"},
            "labels": {"note": "planted-document"},
        }
        reaper, worker = await fleet.reaper(), await fleet.worker()
        async with LifecycleClient(fleet.settings) as client:
            row = await client.wait(await client.deploy("decky-01", document), timeout=30)
            assert row["status"] == "failed"
            assert "***" in (row["error"] or "")
            await worker.log("runtime.output")
            pending = await client.deploy("decky-01", document, host_uuid="elsewhere")
            await client.cancel(pending)
            await fleet.kill_queue()
            await reaper.log("queue.unreachable")
            errors = [each["error"] for each in await client.repository.list_lifecycles()]
        for daemon in fleet.daemons:
            await daemon.stop()
            assert daemon.garbage == []
        assert len(CLIENT_LOG.lines) > 2
        assert PLANTED not in str([fleet.lines(), errors])
        assert "planted-document" not in str([fleet.lines(), errors])
        assert "honeypot" in str(worker.lines), "what is no secret is shown"
