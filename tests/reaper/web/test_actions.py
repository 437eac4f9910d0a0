"""Cancel, retry and teardown from the page: what is done, what is told, and who is refused."""

import pytest

from tests.reaper.web.conftest import TOKEN, LivePage
from tests.support.fleet import Fleet, gated, wait_status

pytestmark = pytest.mark.anyio


async def test_each_action_is_done_and_told(fleet: Fleet, page: LivePage) -> None:
    await fleet.worker()
    await page.start("--actions")
    async with fleet.client() as client:
        running = await gated(fleet, client)
        assert (await page.act("cancel", running)).json() == {"row": running}
        assert (await wait_status(client, running, "failed"))["outcome"] == "cancelled"
        fleet.gate().touch()
        again = (await page.act("retry", running, **{"X-Forwarded-For": "192.0.2.7\x1b[2J"})).json()["row"]
        row = await wait_status(client, again, "succeeded")
        assert row["retry_of"] == running
        gone = (await page.act("teardown", again)).json()["row"]
        assert (await wait_status(client, gone, "succeeded"))["operation"] == "teardown"
    told = [await page.daemon.log("web.acted", action=each) for each in ("cancel", "retry", "teardown")]
    assert [(line["who"], line["address"], line["decky_name"]) for line in told] == [
        ("ada", "127.0.0.1", "decky-01")
    ] * 3
    assert [line["forwarded_for"] for line in told] == [None, "192.0.2.7[2J", None]
    await page.daemon.stop()
    assert TOKEN not in str(page.daemon.lines)


async def test_whoever_is_not_the_page_or_has_no_token_is_refused(fleet: Fleet, page: LivePage) -> None:
    await page.start("--actions")
    async with fleet.client() as client:
        pending = await client.deploy("decky-01", fleet.document("decky-01"))
        for status, headers in (
            (401, {"X-Decnet-Token": "f" * 32}),
            (401, {"X-Decnet-Token": ""}),
            (403, {"Origin": "http://evil.example.org"}),
            (403, {"Origin": "null"}),
            (403, {"Sec-Fetch-Site": "cross-site"}),
            (403, {"Sec-Fetch-Site": "same-site"}),
            (415, {"Content-Type": "text/plain"}),
            (421, {"Host": "evil.example.org", "Origin": "http://evil.example.org"}),
        ):
            answer = await page.act("cancel", pending, **headers)
            assert answer.status_code == status, headers
        form = await page.http.post(f"/row/{pending}/cancel", data={"token": TOKEN})
        assert form.status_code == 403
        assert (await page.http.get(f"/row/{pending}/cancel")).status_code == 405
        assert (await page.act("remove", pending)).status_code == 404
        for wrong, reason in ((pending, "still"), ("01a00000-none", "there is no lifecycle 01a00000-none")):
            answer = await page.act("retry", wrong)
            assert answer.status_code == 409
            assert reason in answer.json()["error"]
        assert (await client.get(pending))["status"] == "pending"
    line = await page.daemon.log("web.refused", reason="this token is not known here")
    assert (line["action"], line["lifecycle_id"], line["address"]) == ("cancel", pending, "127.0.0.1")
    assert not page.daemon.logged("web.acted")


async def test_a_person_may_have_several_tokens(fleet: Fleet, page: LivePage) -> None:
    another = TOKEN[::-1]
    await page.start("--actions", tokens=f"ada:{TOKEN}\nada:{another}")
    async with fleet.client() as client:
        for number, token in enumerate((TOKEN, another)):
            name = f"decky-{number}"
            pending = await client.deploy(name, fleet.document(name))
            assert (await page.act("cancel", pending, **{"X-Decnet-Token": token})).status_code == 200
            assert (await page.daemon.log("web.acted", lifecycle_id=pending))["who"] == "ada"


async def test_without_actions_it_only_reads(fleet: Fleet, page: LivePage) -> None:
    await page.start()
    async with fleet.client() as client:
        pending = await client.deploy("decky-01", fleet.document("decky-01"))
        state = await page.until(f"/events/{pending}", lambda state: state.get("story"))
        assert state["story"]["actions"] == []
        assert (await page.act("cancel", pending)).status_code == 404
        assert (await client.get(pending))["status"] == "pending"
