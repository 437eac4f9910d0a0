"""docs/how-to/move-in.md with DECNET's own package: its migration makes the file, both go on with it."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

import reaper
from tests.support.decnet.engine import Decnet
from tests.support.fleet import HANG_GUARD_S, Fleet

pytestmark = pytest.mark.anyio

# A start of DECNET's API, as far as its database goes, and then whatever is asked for.
START = """
import asyncio
from datetime import datetime, timedelta, timezone

from decnet.web.db.factory import get_repository
from decnet.web.dependencies import repo


async def main():
    await repo.initialize()
    hour = datetime.now(timezone.utc) - timedelta(hours=1)
    print("swept", await repo.sweep_stale_lifecycle(hour, reason="master restarted during operation"))
{rest}

asyncio.run(main())
"""
FIRST = """
    done = await repo.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
    await repo.update_lifecycle(done, {"status": "running"})
    await repo.update_lifecycle(done, {"status": "succeeded"})
    cut = await repo.create_lifecycle({"decky_name": "decky-02", "operation": "deploy"})
    await repo.update_lifecycle(cut, {"status": "running"})
    print(done, cut)
"""
LATER = """
    import sys

    for row in await repo.get_lifecycle_by_ids(sys.argv[1:]):
        print(row["status"], row["error"])
    agents = {"decky_name": "decky-03", "operation": "deploy", "host_uuid": "h1", "status": "running"}
    started = await repo.create_lifecycle(agents)
    found = await repo.find_open_lifecycle("decky-03", "deploy", "h1")
    await repo.update_lifecycle(found["id"], {"status": "running"})
    await repo.update_lifecycle(started, {"status": "failed", "error": "boom"})
    print((await repo.get_lifecycle_by_ids([started]))[0]["error"])

    # What goes by decnet-state.json, which only DECNET's engine writes.
    from decnet.engine.services_live import ServiceMutationError, add_service
    from decnet.fleet.reconciler import reconcile_once

    decky = {"name": "decky-01", "services": ["ssh"], "decky_config": {}, "decky_ip": "10.0.0.9"}
    await repo.upsert_fleet_decky({"host_uuid": "local", "state": "running", **decky})
    try:
        await add_service(repo, decky_kind="fleet", decky_name="decky-01", service_name="http")
    except ServiceMutationError as error:
        print(str(error)[:23])
    print((await reconcile_once(repo, docker_client_factory=lambda: 1 / 0))["deleted"])
"""


def start(decnet: Decnet, rest: str, *arguments: str) -> list[str]:
    """Start DECNET on its file; the lines that it prints."""
    done = subprocess.run(
        [*decnet.python, "-c", START.format(rest=rest), *arguments],
        cwd=decnet.directory,
        env={name: value for name, value in os.environ.items() if "DECNET" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ALL_COMMANDS = """
import click
from reaper.cli.main import cli

context = click.Context(cli)
print(*(cli.get_command(context, name).name for name in cli.list_commands(context)))
"""


def test_every_command_is_there_in_the_environment_of_decnet(tmp_path: Path) -> None:
    decnet = Decnet(tmp_path / "decnet", "decoy")
    done = subprocess.run(
        [*decnet.python, "-c", ALL_COMMANDS],
        env=os.environ | {"PYTHONPATH": str(Path(reaper.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert {"deploy", "list", "worker", "timeline"} <= set(done.stdout.split()), done.stderr


async def test_decnet_makes_its_file_we_adopt_it_and_decnet_starts_again(
    fleet: Fleet, tmp_path: Path
) -> None:
    decnet = Decnet(tmp_path / "decnet", "decoy")
    file = decnet.directory / "decnet.db"
    fleet.set(database=str(file))
    for arguments in (("worker",), ("list",)):
        status, _, said = await fleet.run(*arguments)
        assert status == 3
        assert "no store is there" in said
    assert not file.exists()

    swept, ids = start(decnet, FIRST)
    assert swept == "swept 0"
    done, cut = ids.split()
    worker, reaper = await fleet.worker(), await fleet.reaper()
    await reaper.log("lifecycle.swept", lifecycle_id=cut)
    async with fleet.client() as client:
        deployed = await client.deploy("decky-01", fleet.document("decky-01", "ssh"))
        assert (await client.wait(deployed, HANG_GUARD_S))["status"] == "succeeded"

    restarted = "master restarted during operation"
    assert start(decnet, LATER, done, cut, deployed) == [
        "swept 0",
        *("succeeded None", f"failed {restarted}", "succeeded None"),
        "boom",
        "no fleet state on disk ",
        "1",
    ]
    assert (await worker.stop(), await reaper.stop()) == (0, 0)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM users").fetchone() == (1,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
