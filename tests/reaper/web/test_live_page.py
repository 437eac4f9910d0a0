"""The live page over HTTP: what it tells, what it hides, and how it starts and stops."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from reaper.web.overview import waits
from reaper.web.story import steps
from reaper.web.watcher import Watcher
from tests.reaper.web.conftest import LivePage
from tests.support.fleet import Fleet, exits, gated, wait_status
from tests.support.store.rows import NOON, row
from worker.queue import Queue

pytestmark = pytest.mark.anyio


async def test_what_runs_waits_and_has_ended_is_told_as_it_happens(fleet: Fleet, page: LivePage) -> None:
    await fleet.worker()
    await page.start()
    async with fleet.client() as client:
        failed = await client.deploy("decky-02", {"services": {"decky-02": exits("/no/such/<b>")}})
        running = await gated(fleet, client)
        pending = await client.teardown("decky-01")
        await wait_status(client, failed, "failed")

    state = await page.until("/events", lambda state: state["ended"] and state["pending"])
    [row] = state["running"]
    assert (row["id"], row["decky"], row["operation"]) == (running, "decky-01", "deploy")
    assert row["deadline"] > row["claimed"]
    [row] = state["pending"]
    assert (row["id"], row["why"]) == (pending, "for its decky's running deploy")
    [row] = state["ended"]
    assert (row["id"], row["outcome"]) == (failed, "failed")
    assert "/no/such/<b>" in row["error"]
    assert state["store"]["up"] is True
    state = await page.until("/events", lambda state: state.get("hours") and state["queue"]["up"])
    assert state["hours"][0]["outcomes"] == {"failed": 1}
    assert (state["hosts"][0]["running"], state["hosts"][0]["pending"]) == (1, 1)

    fleet.gate().touch()
    state = await page.until("/events", lambda state: len(state["ended"]) == 3)
    assert {row["id"] for row in state["ended"]} == {failed, running, pending}
    assert state["running"] == state["pending"] == []


async def test_filters_stand_in_the_address(fleet: Fleet, page: LivePage) -> None:
    await page.start()
    async with fleet.client() as client:
        for name in ("decky-01", "decky-02"):
            await client.cancel(await client.deploy(name, fleet.document(name)))
        here = await client.deploy("decky-01", fleet.document("decky-01"))
        there = await client.deploy("decky-01", fleet.document("decky-01"), host_uuid="h1")

    async def found(query: str) -> tuple[set[str], set[str]]:
        state = await page.until(f"/events?{query}", lambda state: "ended" in state)
        return {row["id"] for row in state["pending"]}, {row["decky"] for row in state["ended"]}

    assert await found("") == ({here, there}, {"decky-01", "decky-02"})
    assert await found("decky=decky-02") == (set(), {"decky-02"})
    assert await found("host=h1") == ({there}, set())
    assert await found("host=-") == ({here}, {"decky-01", "decky-02"})
    assert await found("state=pending") == ({here, there}, set())
    assert await found("outcome=cancelled&decky=decky-01") == (set(), {"decky-01"})
    assert await found("error=BY+operator") == (set(), {"decky-01", "decky-02"})
    assert await found("error=no+such") == (set(), set())
    assert await found("until=1h") == (set(), set())
    for query, reason in {
        "state=odd": "state 'odd': expected pending, running, succeeded, failed",
        "since=yesterday": "since 'yesterday': expected a duration back from now such as 2h, or an ISO 8601",
        "name=x": "'name': expected decky, error, host, outcome, since, state, until",
    }.items():
        answer = await page.http.get(f"/events?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(reason)


async def test_the_page_of_a_row_tells_its_story_and_no_secret(fleet: Fleet, page: LivePage) -> None:
    worker = await fleet.worker()
    await page.start()
    document = fleet.document("decky-01", "ssh", gate=fleet.gate())
    document["services"]["decky-01"]["environment"] = {"ROOT_PASSWORD": "pw", "MOTD": "say hunter2hunter2"}
    document["services"]["decky-01-ssh"]["environment"] = ["API_TOKEN=hunter2hunter2", "PORT=22"]
    async with fleet.client() as client:
        first = await client.deploy("decky-01", document)
        await wait_status(client, first, "running")
        state = await page.until(f"/events/{first}", lambda state: state.get("story"))
        assert [step["what"] for step in state["story"]["steps"]][:3] == ["accepted", "enqueued", "claimed"]
        fleet.gate().touch()
        await worker.log("lifecycle.succeeded", lifecycle_id=first)
        last = await client.mutate("decky-01", services=["ssh"])
        await wait_status(client, last, "succeeded")

    state = await page.until(
        f"/events/{first}",
        lambda state: state["story"]["around"][-1]["id"] == last and state["story"]["row"]["ended"],
    )
    story = state["story"]
    assert story["steps"][-1]["what"] == "succeeded"
    assert all(step["after"] >= 0 for step in story["steps"])
    assert [each["services"] for each in story["around"]] == [["decky-01", "decky-01-ssh"]] * 2
    assert story["runs"] == ["decky-01", "decky-01-ssh"]
    assert "hunter2" not in str(story)
    assert "ROOT_PASSWORD: '***'" in story["request"]
    assert "MOTD: say ***" in story["request"]
    assert "API_TOKEN=***" in story["request"]
    assert "PORT=22" in story["request"]
    state = await page.until("/events/01a00000-none", lambda _: True)
    assert state["story"] is None


def test_a_line_that_was_seen_late_stands_before_the_end() -> None:
    ended = row(1, status="succeeded", claimed_at=1, completed_at=2, enqueued_at=None, owner=None)
    ended |= {"cancel_requested_at": None, "retry_id": None}
    late = (NOON + timedelta(seconds=3)).isoformat()
    told = [step["what"] for step in steps(ended, [], [(late, "started")])]
    assert told == ["accepted", "claimed", "output", "succeeded"]


async def test_an_outage_of_redis_is_told_since_when(fleet: Fleet, page: LivePage) -> None:
    await page.start()
    up = await page.until("/events", lambda state: state["queue"]["up"])
    await fleet.kill_queue()
    down = await page.until("/events", lambda state: state["queue"]["up"] is False)
    assert down["queue"]["since"] > up["queue"]["since"]
    assert "queue.sock" in down["queue"]["reason"]
    await fleet.start_queue()
    await page.until("/events", lambda state: state["queue"]["up"] and state["queue"]["since"] > down["now"])


async def test_every_answer_forbids_what_is_not_ours(fleet: Fleet, page: LivePage) -> None:
    await page.start("--name", "Deckies.example.org")
    answers = [
        await page.http.get(path) for path in ("/", "/row/x", "/static/page.js", "/none", "/events?x=1")
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 400]
    known = await page.http.get("/", headers={"Host": "deckies.example.org"})
    rebound = await page.http.get("/", headers={"Host": "evil.example.org:80"})
    assert (known.status_code, rebound.status_code) == (200, 421)
    for answer in (*answers, known, rebound):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    for file in (Path(__file__).parents[3] / "reaper/web/static").iterdir():
        text = file.read_text()
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", ""), "all is ours"
        assert "innerHTML" not in text.replace("no innerHTML", "")


async def test_a_unix_socket_is_its_groups_and_is_gone_afterwards(fleet: Fleet, page: LivePage) -> None:
    path = fleet.root / "web.sock"
    for _ in range(2):
        await page.start(listen=f"unix:{path}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as http:
            assert (await http.get("http://localhost/")).status_code == 200
        await page.daemon.kill()  # what one that was killed left behind is no obstacle
    await page.start(listen=f"unix:{path}")
    assert await page.daemon.stop() == 0
    assert not path.exists()
    assert page.daemon.logged("web.stopped")


async def test_a_unix_socket_that_another_one_uses_is_left_to_it(fleet: Fleet, page: LivePage) -> None:
    path = fleet.root / "web.sock"

    async def answers() -> int:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as http:
            return (await http.get("http://localhost/")).status_code

    await page.start(listen=f"unix:{path}")
    first = page.daemon
    status, _, err = await fleet.run("web", "--listen", f"unix:{path}")
    assert (status, err.count("\n")) == (3, 1)
    assert f"can't listen on {path}: another process does" in err
    assert await answers() == 200
    path.unlink()
    await page.http.aclose()
    await page.start(listen=f"unix:{path}")
    assert await first.stop() == 0
    assert await answers() == 200


async def test_it_ends_while_somebody_watches(fleet: Fleet, page: LivePage) -> None:
    await page.start()
    async for _ in page.states("/events"):
        assert await page.daemon.stop() == 0
        break


async def test_what_listens_for_others_says_what_that_means(fleet: Fleet, page: LivePage) -> None:
    await page.start(listen="0.0.0.0:0")
    assert (await page.daemon.log("web.exposed"))["listen"].startswith("0.0.0.0:")


@pytest.mark.parametrize(
    ("options", "tokens", "expected", "reason"),
    [
        (["--listen", "8090"], "", 2, "--listen '8090': expected ADDRESS:PORT"),
        (["--listen", "127.0.0.1:65536"], "", 2, "--listen '127.0.0.1:65536': expected ADDRESS:PORT"),
        (["--listen", "192.0.2.1:8090"], "", 3, "can't listen on 192.0.2.1:8090: Cannot assign requested"),
        (["--listen", "unix:/no/such/dir/s"], "", 3, "can't listen on /no/such/dir/s: No such file"),
        (["--actions"], "", 2, "--actions needs the setting web_tokens"),
        (["--actions"], "ada:hunter2", 2, "its entry 1 is not NAME:TOKEN with a token of 24 to 256"),
    ],
)
async def test_what_cannot_be_started_is_one_clear_line(
    fleet: Fleet, options: list[str], tokens: str, expected: int, reason: str
) -> None:
    status, _, err = await fleet.run("web", *options, DECNET_REAPER_WEB_TOKENS=tokens)
    assert (status, err.count("\n")) == (expected, 1)
    assert reason in err
    assert "hunter2" not in err


async def test_without_the_extra_it_says_what_to_install(fleet: Fleet) -> None:
    missing = fleet.root / "without" / "uvicorn.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError(name='uvicorn')")
    fleet.environment["PYTHONPATH"] = f"{missing.parent}:{fleet.environment['PYTHONPATH']}"
    status, _, err = await fleet.run("web")
    assert (status, err) == (3, "decnet-reaper: uvicorn is missing: pip install 'decnet-reaper[web]'\n")


async def test_why_a_row_waits(fleet: Fleet) -> None:
    async with fleet.client() as client:
        for name, operation in (("d1", "deploy"), ("d1", "teardown"), ("d2", "deploy")):
            await client.repository.create_lifecycle({"decky_name": name, "operation": operation})
        rows = await client.repository.list_open_lifecycles()
    late = max(row["started_at"] for row in rows)
    now = datetime.fromisoformat(late)
    assert [*waits(rows, now).values()] == [
        "for its decky's pending deploy",
        "for a free worker; before it 0 running, 2 pending",
    ]
    assert (
        waits(rows, now + timedelta(minutes=1))[rows[0]["id"]]
        == "no worker of its host takes it; does one run?"
    )
    assert "Redis is away" in waits(rows, now, queue_up=False)[rows[0]["id"]]


async def test_hours_that_are_over_are_counted_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reaper.web.watcher._FIGURES_S", 0)
    async with fleet.client() as client:
        watcher = Watcher(client.repository, Queue(fleet.settings.redis))

        async def end(ago: timedelta) -> None:
            data = {"decky_name": "d1", "operation": "deploy", "started_at": datetime.now(UTC) - ago}
            lifecycle_id = await client.repository.create_lifecycle(data)
            fields = {"status": "failed", "error": "x", "completed_at": datetime.now(UTC) - ago}
            await client.repository.update_lifecycle(lifecycle_id, fields)

        async def counted() -> list[int]:
            return [sum(hour.outcomes.values()) for hour in (await watcher.figures()).hours]

        await end(timedelta(hours=5))
        assert await counted() == [1]
        await end(timedelta())
        assert await counted() == [1, 1]
        await end(timedelta(days=2))
        assert await counted() == [1, 1]
