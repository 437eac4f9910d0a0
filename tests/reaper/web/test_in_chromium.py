"""The live page in a real Chromium: what a person sees and can do, and that nothing becomes markup."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from tests.reaper.web.conftest import TOKEN, LivePage
from tests.support.fleet import Fleet, exits, gated, wait_status
from tests.support.programs.browser_tab import Tab, open_tab
from tests.support.store.witness import sqlite_only
from worker.queue import Queue

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

MARKUP = "<script>document.title='taken'</script><img src=/x onerror=document.title='taken'>"
LIVE = "document.querySelector('#live').textContent == 'live'"
AXE = """axe.run(document, {resultTypes: ['violations']}).then(found => [found.passes.length > 5,
    found.violations.filter(each => ['serious', 'critical'].includes(each.impact)).map(each => each.id)])"""
REACHABLE = """[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
    .filter(each => each.checkVisibility()).length"""
FOCUSED = """(() => {
    const each = document.activeElement, reached = window.reached ??= new Set();
    const {outlineStyle, outlineWidth} = getComputedStyle(each);
    const is_seen = outlineStyle != 'none' && parseInt(outlineWidth) > 0;
    if (each === document.body || reached.has(each)) return reached.size;
    reached.add(each);
    return is_seen ? 0 : each.outerHTML;
})()"""


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with open_tab(tmp_path) as tab:
        yield tab


def says(selector: str, text: str) -> str:
    """That an element's text contains this."""
    return f"document.querySelector({selector!r}).textContent.includes({text!r})"


def rows(table: str, count: int) -> str:
    """That a table has so many rows."""
    return f"document.querySelectorAll('#{table} tr').length == {count}"


async def test_it_tells_the_truth_without_a_reload_after_one_and_after_an_outage(
    fleet: Fleet, page: LivePage, tab: Tab
) -> None:
    await fleet.worker()
    await page.start(listen="127.0.0.9:0")  # nobody else takes its port while it is away
    listen = page.url.removeprefix("http://")
    async with fleet.client() as client:
        await tab.open(page.url)
        await tab.until(LIVE)
        await tab.js("window.same = true")
        await gated(fleet, client)
        await tab.until(says("#running td", "decky-01"))
        await tab.until("document.title == '1 run, 0 wait - Deckies'")
        waits = await client.teardown("decky-01")
        await tab.until(says("#pending tr", "for its decky's running deploy"))
        fleet.gate().touch()
        await tab.until(f"{rows('ended', 2)} && {rows('running', 0)} && {rows('pending', 0)}")
        await tab.until("document.querySelectorAll('#figures svg').length == 3")
        assert await tab.js("window.same"), "nothing was loaded again"
        assert tab.complaints == []

        await tab.call("Page.reload")
        await tab.until(f"{rows('ended', 2)} && !window.same")

        await page.daemon.kill()
        await tab.until(says("#alert", "No connection since"))
        again = await client.retry(waits)
        await wait_status(client, again, "succeeded")
        await page.start(listen=listen)
        await tab.until(f"document.querySelector('#alert').hidden && {LIVE}")
        await tab.until(rows("ended", 3))

        await tab.open(f"{page.url}/?decky=decky-01&outcome=succeeded")
        await tab.until(rows("ended", 3))
        await tab.js("document.querySelector('[name=error]').focus()")
        await tab.type("no such")
        await tab.press("Enter")
        await tab.until("location.search == '?decky=decky-01&outcome=succeeded&error=no+such'")
        await tab.until(says("#ended-none", "the filter"))

        await tab.open(f"{page.url}/row/{waits}")
        await tab.until(says("#row-h", "teardown of decky-01"))
        await tab.until(says("#row-state", "succeeded in"))
        await tab.until(f"document.querySelector('#steps a[href=\"/row/{again}\"]')")
        steps = await tab.js("[...document.querySelectorAll('#steps b')].map(each => each.textContent)")
        assert steps == ["accepted", "enqueued", "claimed", "succeeded", "asked for again"]


@sqlite_only
async def test_what_others_wrote_is_text(fleet: Fleet, page: LivePage, tab: Tab) -> None:
    await fleet.worker()
    await page.start()
    async with fleet.client() as client:
        document = {"services": {"decky-02": exits(f"/no/such/{MARKUP}")}}
        failed = await client.deploy("decky-02", document)
        await wait_status(client, failed, "failed")
        row = {"decky_name": "decky-01", "operation": "deploy", "status": "running"}
        running = await client.repository.create_lifecycle(row)
        queue = Queue(fleet.settings.redis)
        await queue.put_lines(None, {running: f"Container {MARKUP}"})
        await queue.close()
        with closing(sqlite3.connect(fleet.settings.database_name)) as shell:
            shell.execute(
                "INSERT INTO decky_lifecycle"
                " (id, decky_name, host_uuid, operation, status, started_at, updated_at)"
                " SELECT ?, ?, ?, 'teardown', 'pending', started_at, updated_at"
                " FROM decky_lifecycle WHERE id = ?",
                (f"01{MARKUP}", MARKUP, MARKUP, running),
            )
            shell.commit()

    await tab.open(page.url)
    await tab.until(says("#running .line", "<script>"))
    await tab.until(says("#ended .error", "onerror="))
    await tab.until(says("#pending td", "<script>"))
    await tab.until(says("#hosts", "<script>"))
    await tab.open(f"{page.url}/row/{failed}")
    await tab.until(says("#request", "<script>") + " && " + says("#steps", "onerror="))
    await tab.open(f"{page.url}/row/{running}")
    await tab.until(says("#steps", "<script>"))
    for path in ("/", f"/row/{failed}", f"/row/{running}", f"/?decky={MARKUP}"):
        await tab.open(page.url + path)
        await tab.until(LIVE)
        assert await tab.js("document.querySelectorAll('main script, main img').length") == 0
        assert "taken" not in await tab.js("document.title")
    assert tab.complaints == []


async def test_everybody_can_read_it(fleet: Fleet, page: LivePage, tab: Tab, tmp_path: Path) -> None:
    await fleet.worker()
    await page.start("--actions")
    async with fleet.client() as client:
        await client.deploy("decky-02", {"services": {"decky-02": exits("/no/such/" + "long" * 99)}})
        running = await gated(fleet, client, "decky-" + "01" * 61)
        await client.teardown("decky-" + "01" * 61)
    for path, shown in (("/", rows("ended", 1)), (f"/row/{running}", says("#row-actions", "cancel"))):
        for width, dark in ((1280, False), (420, True)):
            await tab.window(width, 900, dark=dark)
            await tab.open(page.url + path)
            await tab.until(shown)
            await tab.until(
                "document.querySelectorAll('#figures svg').length == 3 || location.pathname != '/'"
            )
            assert await tab.js("document.documentElement.scrollWidth") <= width, "nothing is cut off"
            corner = Image.open(await tab.picture(tmp_path / "page.png")).convert("RGB").getpixel((2, 2))
            assert (sum(corner) < 150) == dark  # type: ignore[arg-type]
            assert await reached_by_tab(tab) == await tab.js(REACHABLE)
            assert tab.complaints == []
            await tab.js(axe() + ";0")
            assert await tab.js(AXE) == [True, []]
            tab.complaints.clear()  # axe looks at more than a page of ours may


async def test_an_action_asks_first_and_for_a_token(fleet: Fleet, page: LivePage, tab: Tab) -> None:
    await fleet.worker()
    await page.start("--actions")
    async with fleet.client() as client:
        running = await gated(fleet, client)
        await tab.open(f"{page.url}/row/{running}")
        await tab.until(says("#row-actions button", "cancel"))
        await tab.js("document.querySelector('#row-actions button').focus()")
        await tab.press("Enter")
        await tab.until("document.querySelector('#ask').open && document.activeElement.id == 'token'")
        await tab.press("Escape")
        await tab.until("!document.querySelector('#ask').open")
        assert (await client.get(running))["cancel_requested_at"] is None
        await tab.press("Enter")
        await tab.until("document.activeElement.id == 'token'")
        await tab.type("not the token, and long enough")
        await tab.press("Enter")
        await tab.until(says("#ask-error", "this token is not known here"))
        await tab.js(axe() + ";0")
        assert await tab.js(AXE) == [True, []]
        await tab.js("document.querySelector('#token').select()")
        await tab.type(TOKEN)
        await tab.press("Enter")
        await tab.until(says("#row-state", "cancelled in"))  # before, it is being cancelled
        await tab.until(says("#steps", "cancel asked for"))
        assert (await client.get(running))["outcome"] == "cancelled"
        assert (await page.daemon.log("web.acted"))["who"] == "ada"


async def reached_by_tab(tab: Tab) -> int:
    """How many elements the tabulator key leads to; each can be seen to have the focus."""
    while True:
        await tab.press("Tab")
        told: int | str = await tab.js(FOCUSED)
        assert isinstance(told, int), f"its focus can't be seen: {told}"
        if told:
            return told


def axe() -> str:
    """The script of axe-core; the package holds nothing else that we need."""
    spec = find_spec("axe_core_python")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("axe.min.js").read_text()
