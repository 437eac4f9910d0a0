"""`decnet-reaper hosts`, and what other commands say of hosts that are not there."""

import json
import tomllib
from pathlib import Path

import pytest

from repo.postgres.observer import Observer
from repo.postgres.presence import Presence
from repo.postgres.server import Server
from tests.support.fleet import Fleet
from tests.support.queue.redis_programs import HOST, RedisProgram
from tests.support.store.postgres_server import PostgresServer
from worker.queue.users import user_name

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("on_postgres")]

SECRET = "administrators-queue"  # noqa: S105 - of a server that lives as long as the test does


async def was_there(fleet: Fleet, host: str) -> None:
    """A host whose daemons have gone."""
    server = Server(fleet.settings.database)
    presence, observer = Presence(server, host), Observer(server, 30, longest_gap=10)
    await presence.open()
    await presence.close()
    while (await observer.look())[host].present:
        pass
    await observer.changes()
    await observer.close()


async def test_hosts_and_their_open_rows(fleet: Fleet) -> None:
    status, out, err = await fleet.run("hosts")
    assert (status, out) == (0, "")
    presence = Presence(Server(fleet.settings.database), "h1", "decnet-reaper worker 9.9")
    await presence.open()
    for host in ("h2", "h3"):
        await was_there(fleet, host)
    async with fleet.client() as client:
        for host in ("h1", "h2", "h3", "h4"):
            await client.deploy(f"decky-{host}", fleet.document(f"decky-{host}"), host_uuid=host)
    assert await fleet.run("hosts", "lost", "h3") == (
        0,
        "h3: lost; its running rows are closed by a reaper's next sweep\n",
        "",
    )
    status, out, err = await fleet.run("hosts", "lost", "h1")
    assert (status, out, "h1 is present: its own reaper judges its rows" in err) == (2, "", True)

    hosts = {host["host_uuid"]: host for host in json.loads((await fleet.run("hosts", "--json"))[1])}
    states = {uuid: host["state"] for uuid, host in hosts.items()}
    assert states == {"h1": "present", "h2": "absent", "h3": "lost", "h4": "never seen"}
    assert hosts["h1"]["daemons"] == ["decnet-reaper worker 9.9"]
    assert [(host["running"], host["pending"]) for host in hosts.values()] == [(0, 1)] * 4
    _, out, _ = await fleet.run("hosts")
    heading, h1, *_ = [line.split() for line in out.splitlines()]
    assert heading == ["host", "state", "since", "daemons", "running", "pending", "oldest"]
    assert (h1[:2], h1[3:7]) == (["h1", "present"], ["worker", "9.9", "0", "1"])

    _, out, _ = await fleet.run("list")
    assert [word in out for word in ("pending, host absent", "pending, host lost")] == [True, True]
    rows = json.loads((await fleet.run("list", "--json"))[1])
    assert {row["host_uuid"]: row["host_away"] for row in rows} == {
        **{"h1": None, "h2": "absent", "h3": "lost", "h4": None}
    }
    _, out, _ = await fleet.run("deckies", "--host", "h2")
    assert "h2 (absent)" in out
    await presence.close()


async def test_a_dry_run_leaves_it_to_the_next_sweep_to_say_that_a_host_is_lost(fleet: Fleet) -> None:
    await fleet.run("hosts")
    await was_there(fleet, "h1")
    await fleet.run("hosts", "lost", "h1")
    said = [await fleet.run("sweep", *dry) for dry in (["--dry-run"], ["--dry-run"], [], [])]
    assert [(status, "lost" in err) for status, _, err in said] == [
        (0, False),
        (0, False),
        (0, True),
        (0, False),
    ]


async def test_a_host_is_added_works_with_what_was_printed_and_is_removed(
    fleet: Fleet, server: PostgresServer, tmp_path: Path
) -> None:
    queue = RedisProgram(tmp_path, password=SECRET)
    await queue.ready()
    fleet.set(redis=f"redis://:{SECRET}@{HOST}:{queue.port}/0")
    try:
        status, out, err = await fleet.run("hosts", "add", "h2")
        assert status == 0, err
        given = tomllib.loads(out)
        assert set(given) == {"host_uuid", "database", "database_password", "redis"}
        assert SECRET not in out
        # the history of the rows is the tests' own
        grants = ("INSERT ON history", "USAGE ON SEQUENCE history_number_seq")
        for grant in grants:
            server.psql(f"GRANT {grant} TO decnet_host_h2", fleet.settings.database.rpartition("/")[2])
        root = fleet.root / "h2"
        root.mkdir()
        host = Fleet(root, **given)
        host.daemons = fleet.daemons
        await host.worker()
        reaper = await host.reaper()
        async with fleet.client() as client:
            lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"), host_uuid="h2")
            assert (await client.wait(lifecycle_id, timeout=60))["status"] == "succeeded"
        status, _, err = await fleet.run("hosts", "add", "h2")
        assert (status, "`hosts remove h2` takes it away" in err) == (3, True)
        _, out, _ = await fleet.run("hosts", "remove", "h2")
        assert out == "h2: removed; its running rows are closed as lost by a reaper's next sweep\n"
        await reaper.log("presence.lost", session="own")
        assert await fleet.run("hosts", "--json") == (0, "[]\n", "")
        _, _, err = await fleet.run("hosts", "remove", "h2")
        assert "h2 is not known, and has no queue user" in err
        await host.close()
    finally:
        queue.kill()


async def test_where_the_queue_can_have_no_users_no_role_is_made_and_hosts_stay_as_they_were(
    fleet: Fleet, server: PostgresServer
) -> None:
    presence = Presence(Server(fleet.settings.database), "h5")
    await presence.open()
    for host in ("h6", "h7"):
        await was_there(fleet, host)
    await fleet.run("hosts", "lost", "h7")
    for host in ("h4", "h5", "h6", "h7"):
        status, out, err = await fleet.run("hosts", "add", host)
        assert (status, out, err.count("\n")) == (3, "", 1)
        assert "set requirepass" in err
        assert server.psql(f"SELECT FROM pg_roles WHERE rolname = '{user_name(host)}'") == ""
    hosts = json.loads((await fleet.run("hosts", "--json"))[1])
    assert {host["host_uuid"]: host["state"] for host in hosts} == {
        **{"h5": "present", "h6": "absent", "h7": "lost"}
    }
    assert not any(host["has_role"] for host in hosts)
    await presence.close()


async def test_a_store_in_a_file_has_one_host(fleet: Fleet) -> None:
    status, out, err = await fleet.run("hosts", DECNET_REAPER_DATABASE=str(fleet.root / "store.db"))
    assert (status, out) == (3, "")
    assert "a file is the store of one host; several need PostgreSQL" in err
