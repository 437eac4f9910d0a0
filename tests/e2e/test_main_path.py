"""From an accepted job to a truthful row, with real daemons on the process runtime."""

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from repo.errors import InvalidLifecycle, LifecycleClosed, LifecycleNotFound, TransitionRefused
from tests.support.fleet import Fleet, accept, exits, gated, running_fleet, wait_status
from worker.client import InvalidDocument, InvalidRequest, LifecycleClient

pytestmark = pytest.mark.anyio


def pids(marker: str) -> dict[str, int]:
    """Pids of the decoy processes of one fleet, by service."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            environ = (process / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        names = dict(entry.split("=", 1) for entry in environ if "=" in entry)
        if process.name.isdecimal() and names.get("DECNET_STATE", "").startswith(marker):
            found[names["DECNET_SERVICE"]] = int(process.name)
    return found


async def deployed(fleet: Fleet, client: LifecycleClient, decky_name: str, *services: str) -> None:
    lifecycle_id = await client.deploy(decky_name, fleet.document(decky_name, *services))
    row = await client.wait(lifecycle_id, timeout=30)
    assert row["status"] == "succeeded", row["error"]


async def test_a_deploy_is_accepted_run_and_told_about(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01", "ssh", "http"))
        row = await client.wait(lifecycle_id, timeout=30)
    assert (row["status"], row["error"], row["attempt"]) == ("succeeded", None, 1)
    assert row["started_at"] <= str(row["claimed_at"]) <= str(row["completed_at"])
    assert set(pids(str(fleet.root))) == {"decky-01", "decky-01-ssh", "decky-01-http"}
    line = await worker.log("lifecycle.succeeded", lifecycle_id=lifecycle_id)
    assert (line["decky_name"], line["operation"], line["runtime"]) == ("decky-01", "deploy", "process")
    assert line["owner"] == row["owner"]
    assert await worker.stop() == 0
    assert worker.garbage == []


async def test_a_mutate_swaps_services_and_leaves_the_base_alone(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        await deployed(fleet, client, "decky-01", "ssh", "http")
        before = pids(str(fleet.root))
        for services, expected in ((["http"], "http"), (["decky-01-ssh"], "ssh")):
            row = await client.wait(await client.mutate("decky-01", services=services), timeout=30)
            assert row["status"] == "succeeded", row["error"]
            after = pids(str(fleet.root))
            assert set(after) == {"decky-01", f"decky-01-{expected}"}
            assert after["decky-01"] == before["decky-01"]


async def test_a_failed_mutate_brings_the_previous_services_back(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        await deployed(fleet, client, "decky-01", "ssh")
        broken = fleet.document("decky-01", "http")
        broken["services"]["decky-01-http"] |= exits("sh", "-c", "echo no such key; exit 7")
        row = await client.wait(await client.mutate("decky-01", compose=broken), timeout=30)
        assert row["status"] == "failed"
        assert "no such key" in (row["error"] or "")
        assert "the previous services were brought back: decky-01, decky-01-ssh" in (row["error"] or "")
        assert set(pids(str(fleet.root))) == {"decky-01", "decky-01-ssh"}
        again = await client.wait(await client.mutate("decky-01", services=["ssh"]), timeout=30)
        assert again["status"] == "succeeded"


async def test_a_service_that_exits_is_a_failed_deploy_with_its_reason(fleet: Fleet) -> None:
    await fleet.worker()
    document = fleet.document("decky-01", "http")
    document["services"]["decky-01-http"] |= exits("sh", "-c", "echo address already in use; exit 3")
    async with fleet.client() as client:
        row = await client.wait(await client.deploy("decky-01", document), timeout=30)
    assert row["status"] == "failed"
    assert "address already in use" in (row["error"] or "")
    assert "3" in (row["error"] or "")


async def test_a_teardown_leaves_nothing_and_a_mutate_after_it_is_refused(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        await deployed(fleet, client, "decky-01", "ssh")
        await deployed(fleet, client, "decky-02")
        lifecycle_id = await client.teardown("decky-01")
        with pytest.raises(InvalidRequest, match="decky-01 was torn down: deploy it before"):
            await client.mutate("decky-01", services=["ssh"])
        row = await client.wait(lifecycle_id, timeout=30)
        assert (row["operation"], row["status"], row["error"]) == ("teardown", "succeeded", None)
        assert set(pids(str(fleet.root))) == {"decky-02"}
        assert await client.repository.get_deployed("decky-01", None) is None
        for change in ({"services": ["ssh"]}, {"compose": fleet.document("decky-01")}):
            with pytest.raises(InvalidRequest, match="was torn down"):
                await client.mutate("decky-01", **change)
        again = await client.wait(await client.teardown("decky-01"), timeout=30)
        assert again["status"] == "succeeded"
        await deployed(fleet, client, "decky-01", "http")
        assert set(pids(str(fleet.root))) == {"decky-01", "decky-01-http", "decky-02"}


async def test_a_teardown_that_is_still_open_is_one_row(fleet: Fleet) -> None:
    async with fleet.client() as client:
        first = await client.teardown("decky-01")
        assert await client.teardown("decky-01") == first
        assert await client.teardown("decky-01", host_uuid="h1") != first


async def test_a_name_as_decnet_takes_it_goes_all_the_way(fleet: Fleet) -> None:
    await fleet.worker()
    names = ["Decky_01.lan", "decky-01.lan", "D" * 128]
    async with fleet.client() as client:
        for name in names:
            await deployed(fleet, client, name, "ssh")
        assert len(list((fleet.root / "state" / "deckies").iterdir())) == 3
        for name in names:
            row = await client.wait(await client.teardown(name), timeout=30)
            assert row["status"] == "succeeded", row["error"]
        assert pids(str(fleet.root)) == {}


async def test_who_waits_can_follow_the_retry(fleet: Fleet) -> None:
    worker, _ = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        lifecycle_id = await gated(fleet, client)
        await worker.kill()
        interrupted = await client.wait(lifecycle_id, timeout=30)
        assert interrupted["status"] == "failed"
        fleet.gate().touch()
        await fleet.worker()
        row = await client.wait(lifecycle_id, timeout=30, follow=True)
        assert (row["status"], row["retry_of"]) == ("succeeded", lifecycle_id)
        assert row["id"] == interrupted["retry_id"]


async def test_the_same_again_is_a_new_row_that_names_the_old_one(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        document = fleet.document("decky-01", gate=fleet.gate())
        document["services"]["decky-01"]["healthcheck"]["retries"] = 1
        failed = await client.wait(await client.deploy("decky-01", document), timeout=30)
        assert failed["status"] == "failed"
        fleet.gate().touch()
        row = await client.wait(await client.retry(failed["id"]), timeout=30)
        assert (row["status"], row["retry_of"], row["attempt"]) == ("succeeded", failed["id"], 1)
        assert (await client.wait(await client.retry(row["id"]), timeout=30))["status"] == "succeeded"


async def test_a_retry_is_refused_as_a_new_request_would_be(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.client() as client:
        await deployed(fleet, client, "decky-01", "ssh")
        mutated = await client.mutate("decky-01", services=["ssh"])
        await client.wait(mutated, timeout=30)
        pending = await client.teardown("decky-01")
        with pytest.raises(InvalidRequest, match="was torn down"):
            await client.retry(mutated)
        await client.wait(pending, timeout=30)
        foreign = await accept(client, "decky-02", status="running")
        with pytest.raises(TransitionRefused):
            await client.retry(foreign)
        await client.repository.update_lifecycle(foreign, {"status": "succeeded"})
        with pytest.raises(InvalidLifecycle):
            await client.retry(foreign)
        with pytest.raises(LifecycleNotFound):
            await client.retry("no-such-row")


async def test_the_same_wish_is_one_row_and_a_changed_one_another(fleet: Fleet) -> None:
    async with fleet.client() as client:
        document = fleet.document("decky-01", "ssh", "http")
        first = await client.deploy("decky-01", document)
        assert await client.deploy("decky-01", document) == first
        assert await client.deploy("decky-01", document, host_uuid="h1") != first
        ssh = await client.mutate("decky-01", services=["ssh"])
        assert await client.mutate("decky-01", services=["decky-01-ssh"]) == ssh
        http = await client.mutate("decky-01", services=["http"])
        # The last word must stay the last: ssh again is not the row that http has overtaken.
        assert await client.mutate("decky-01", services=["ssh"]) not in {ssh, http}


async def test_bad_requests_are_refused_before_a_row_exists(fleet: Fleet) -> None:
    async with fleet.client() as client:
        good = fleet.document("decky-01", "ssh")
        for name in ("", "-x", ".x", "a" * 129, "a/b", "a\n", "ü", "a b"):
            with pytest.raises(InvalidRequest, match="can't be a decky's name"):
                await client.deploy(name, good)
        for host in ("", "a b", "../x", "h1\n"):
            with pytest.raises(InvalidRequest, match="can't be a host's id"):
                await client.deploy("decky-01", good, host_uuid=host)
        bad: dict[str, Any] | str
        for bad in ("", "services: [", "- a", {}, {"services": {}}, {"services": {"a": {}, "b": {}}}):
            with pytest.raises(InvalidDocument):
                await client.deploy("decky-01", bad)
        large = {"services": {"decky-01": {"command": "x" * (1 << 20)}}}
        with pytest.raises(InvalidDocument, match="larger than 1048576 bytes"):
            await client.deploy("decky-01", large)
        with pytest.raises(InvalidRequest, match="never been deployed"):
            await client.mutate("decky-01", services=["ssh"])
        with pytest.raises(InvalidRequest, match="either services or"):
            await client.mutate("decky-01")
        assert await client.repository.list_lifecycles() == []
        await client.deploy("decky-01", good)
        with pytest.raises(InvalidDocument, match="telnet"):
            await client.mutate("decky-01", services=["telnet"])
        assert len(await client.repository.list_lifecycles()) == 1


async def test_an_accepted_row_runs_without_redis_too(
    fleet: Fleet,
) -> None:
    await fleet.kill_queue()
    worker, reaper = await fleet.worker(), await fleet.reaper()
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"))
        row = await client.wait(lifecycle_id, timeout=30)
        assert row["status"] == "succeeded"
        await fleet.start_queue()
        for daemon in (worker, reaper):
            await daemon.log("queue.recovered")
        again = await client.mutate("decky-01", compose=fleet.document("decky-01", "ssh"))
        assert (await client.wait(again, timeout=30))["status"] == "succeeded"
    assert len(worker.logged("lifecycle.running", lifecycle_id=lifecycle_id)) == 1
    for daemon in (worker, reaper):
        assert len(daemon.logged("queue.unreachable")) == 1


async def test_mutates_of_one_decky_run_in_the_order_accepted_on_two_workers(fleet: Fleet) -> None:
    await fleet.worker()
    await fleet.worker()
    async with fleet.client() as client:
        await deployed(fleet, client, "decky-01", "ssh", "http")
        chosen = [["ssh"] if number % 2 else ["http"] for number in range(20)]
        ids = await asyncio.gather(*(client.mutate("decky-01", services=services) for services in chosen))
        rows = [await client.wait(lifecycle_id, timeout=60) for lifecycle_id in ids]
    assert len(set(ids)) == 20
    assert ids == sorted(ids)
    assert {row["status"] for row in rows} == {"succeeded"}
    spans = [(str(row["claimed_at"]), str(row["completed_at"])) for row in rows]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert set(pids(str(fleet.root))) == {"decky-01", "decky-01-ssh"}


async def test_fifty_deckies_run_side_by_side_up_to_max_jobs() -> None:
    async with running_fleet(max_jobs="7") as fleet:
        worker = await fleet.worker()
        async with fleet.client() as client:
            names = [f"decky-{number:02}" for number in range(50)]
            ids = [await client.deploy(name, fleet.document(name, gate=fleet.gate())) for name in names]
            await worker.log("lifecycle.running", count=7)
            running = await client.repository.list_lifecycles(statuses=["running"])
            assert len(running) == 7
            fleet.gate().touch()
            rows = [await client.wait(lifecycle_id, timeout=60) for lifecycle_id in ids]
    assert {row["status"] for row in rows} == {"succeeded"}
    moments = sorted([(row["claimed_at"], 1) for row in rows] + [(row["completed_at"], -1) for row in rows])
    level = [sum(step for _, step in moments[: index + 1]) for index in range(len(moments))]
    assert max(level) == 7


async def test_cancel_of_a_pending_row_a_running_one_and_a_closed_one(fleet: Fleet) -> None:
    worker = await fleet.worker()
    async with fleet.client() as client:
        running = await client.deploy("decky-01", fleet.document("decky-01", gate=fleet.gate()))
        await wait_status(client, running, "running")
        pending = await client.mutate("decky-01", services=[])
        row = await client.cancel(pending)
        assert (row["status"], row["error"], row["claimed_at"]) == ("failed", "cancelled by operator", None)
        row = await client.cancel(running)
        assert (row["status"], row["error"]) == ("failed", "cancelled by operator")
        with pytest.raises(LifecycleClosed):
            await client.cancel(running)
        assert len(await client.repository.list_lifecycles()) == 2
    await worker.log(
        "lifecycle.cancelled", lifecycle_id=running, error="cancelled by operator", retry_id=None
    )


async def test_the_command_line_tells_the_same_story(fleet: Fleet) -> None:
    await fleet.worker()
    compose = fleet.root / "compose.json"
    compose.write_text(json.dumps(fleet.document("decky-01", "ssh", "http")))
    status, out, err = await fleet.run("deploy", "decky-01", "--compose", str(compose), "--wait")
    assert status == 0
    assert {*err.splitlines()} <= {f"deploy of decky-01 {state}" for state in ("pending", "running")}
    assert "decky-01 succeeded" in out
    status, out, _ = await fleet.run("mutate", "decky-01", "--services", "ssh", "--wait", "--json")
    row = json.loads(out)
    assert (status, row["status"], row["operation"]) == (0, "succeeded", "mutate")
    assert "payload" not in row
    status, out, _ = await fleet.run("list", "--decky", "decky-01", "--json")
    assert [entry["operation"] for entry in json.loads(out)] == ["mutate", "deploy"]
    status, out, err = await fleet.run("status", row["id"], "no-such-id")
    assert status == 2
    assert row["id"] in out
    assert (
        err == "decnet-reaper: there is no lifecycle no-such-id; decnet-reaper list shows those there are\n"
    )
    status, _, err = await fleet.run("cancel", row["id"])
    assert status == 2
    assert "Traceback" not in err
    bad = json.dumps(fleet.document("decky-02", "ssh")).replace('"3600"', '"x"')
    status, out, _ = await fleet.run("deploy", "decky-02", "--compose", "-", "--wait", stdin=bad.encode())
    assert status == 1
    assert "failed" in out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["deploy", "bad name", "--compose", "-"], 2, "can't be a decky's name"),
        (["deploy", "decky-01", "--compose", "/no/such/file"], 2, "can't be read: No such file"),
        (["deploy", "decky-01", "--compose", "/"], 2, "can't be read: Is a directory"),
        (["deploy", "decky-01"], 2, "--compose"),
        (["deploy", "decky-01", "--compose", "-", "--host", "a b"], 2, "can't be a host's id"),
        (["mutate", "decky-01", "--services", "ssh"], 2, "never been deployed"),
        (["mutate", "decky-01"], 2, "either"),
        (["status"], 2, "ID..."),
        (["sweep", "--older-than", "soon"], 2, "such as 30s"),
        (["no-such-command"], 2, "No such command"),
    ],
)
async def test_bad_usage_is_one_clear_line(
    fleet: Fleet, arguments: list[str], status: int, said: str
) -> None:
    code, out, err = await fleet.run(*arguments, stdin=b"services: {decky-01: {command: x}}")
    assert code == status
    assert said in err
    assert "Traceback" not in err
    assert out == ""


async def test_the_database_may_be_a_path_or_a_url(fleet: Fleet) -> None:
    url = f"sqlite:///{fleet.root}/elsewhere/lifecycles.db"
    path = fleet.root / "elsewhere" / "lifecycles.db"
    status, _, err = await fleet.set(database=url).run("list")
    assert status == 3
    assert "no store is there" in err
    assert not path.parent.exists()  # somebody else may be about to make it
    await fleet.run("doctor", "--create")
    assert path.is_file()
    status, out, err = await fleet.run("list", "--json")
    assert (status, json.loads(out), err) == (0, [], "")
    status, _, err = await fleet.set(database="mysql://db/decnet").run("list")
    assert status == 3
    assert "no such store" in err
    assert "Traceback" not in err
