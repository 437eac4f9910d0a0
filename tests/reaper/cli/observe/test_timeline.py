"""The timeline: what it draws, that it is safe, and how a real browser shows it."""

import io
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import timedelta
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reaper.cli.output.timeline.lanes import lanes_of, was_swept
from reaper.cli.output.timeline.page import render
from repo.base import Lifecycle, Outcome
from tests.support.fleet import Fleet
from tests.support.programs.chromium import Chromium
from tests.support.store.rows import NOON, row

NOW = NOON + timedelta(minutes=10)
GREEN, RED, BLUE, GREEN_WAIT = (47, 158, 98), (217, 69, 61), (43, 123, 211), (169, 216, 189)
HIGHLIGHT = (255, 246, 214)


def story() -> list[Lifecycle]:
    return [
        row(1, "decky-01", "succeeded", started_at=0, claimed_at=60, completed_at=180),
        row(
            2,
            "decky-01",
            "failed",
            started_at=190,
            claimed_at=200,
            completed_at=290,
            error="worker died during operation",
            outcome="swept",
        ),
        row(3, "decky-01", "succeeded", started_at=290, claimed_at=292, completed_at=400, attempt=2),
        row(4, "decky-02", "running", started_at=300, claimed_at=310),
        row(5, "decky-02", "pending", started_at=320),
        row(
            6,
            "decky-03",
            "failed",
            started_at=100,
            completed_at=500,
            error="not started within 1h",
            outcome="expired",
            host_uuid="h1",
        ),
    ]


def texts(svg: bytes) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314  # of our own making
    return ["".join(found.itertext()) for found in root.iter("{http://www.w3.org/2000/svg}text")]


def colours_of(picture: Path | io.BytesIO) -> set[Any]:
    return {colour for _, colour in Image.open(picture).convert("RGB").getcolors(1 << 24) or []}


def links(svg: bytes) -> set[str]:
    return set(re.findall(r'xlink:href="(#row-[^"]+)"', svg.decode()))


@pytest.mark.parametrize(
    ("outcome", "error", "swept"),
    [("timed_out", "timed out after 5 s", False), ("swept", "not seen for 1h", True), (None, "boom", False)],
)
def test_only_what_the_reaper_closed_is_marked(outcome: Outcome | None, error: str, swept: bool) -> None:
    assert was_swept(row(1, "d", "failed", completed_at=1, outcome=outcome, error=error)) == swept


def test_a_lane_per_decky_a_bar_per_attempt() -> None:
    lanes = lanes_of(list(reversed(story())), NOW)
    assert [lane.name for lane in lanes] == ["decky-01", "decky-02", "decky-03 @ h1"]
    assert [[bar.swept for bar in lane.bars] for lane in lanes] == [
        [False, True, False],
        [False, False],
        [True],
    ]
    assert lanes[1].bars[0].end == NOW
    assert lanes[0].bars[0].claimed == NOON + timedelta(seconds=60)


def test_the_svg_names_the_lanes_marks_retries_and_leads_to_the_rows() -> None:
    svg = render(".svg", story(), now=NOW, cut=False)
    said = texts(svg)
    assert {"decky-01", "decky-02", "decky-03 @ h1", "deploy", "closed by the reaper", "2"} <= set(said)
    assert "6 operations: 2 succeeded, 2 failed, 1 running, 1 pending, 2 closed by the reaper" in said
    assert links(svg) == {f"#row-{each['id']}" for each in story()}
    assert svg == render(".svg", story(), now=NOW, cut=False), "the same rows are the same picture"


def test_the_png_is_coloured_by_outcome() -> None:
    png = io.BytesIO(render(".png", story(), now=NOW, cut=False))
    assert Image.open(png).width == 1800
    assert {GREEN, RED, BLUE, GREEN_WAIT} <= colours_of(png)


def test_nothing_happened_is_a_picture_too() -> None:
    assert "nothing happened" in texts(render(".svg", [], now=NOW, cut=False))


def test_names_are_neither_mathematics_nor_markup() -> None:
    strange = [row(1, "$\\frac{<script>", "succeeded", started_at=0, claimed_at=1, completed_at=2)]
    assert "$\\frac{<script>" in texts(render(".svg", strange, now=NOW, cut=False))


@pytest.mark.anyio
async def test_the_command_draws_what_the_store_has(fleet: Fleet) -> None:
    async with fleet.client() as client:
        for name in ("decky-01", "decky-02"):
            await client.deploy(name, fleet.document(name))
    output = fleet.root / "fleet.svg"
    status, out, err = await fleet.run("timeline", "--since", "1h", "-o", str(output))
    assert (status, err) == (0, "")
    assert out.startswith(f"{output}: 2 operations since ")
    assert {"decky-01", "decky-02"} <= set(texts(output.read_bytes()))
    status, _, err = await fleet.run("timeline", "-o", "/no/such/directory/t.png")
    assert (status, err.count("\n")) == (2, 1)
    assert "can't be written: No such file" in err


@pytest.mark.anyio
async def test_without_the_extra_it_says_what_to_install(fleet: Fleet) -> None:
    missing = fleet.root / "without" / "matplotlib.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError(name='matplotlib')")
    fleet.environment["PYTHONPATH"] = f"{missing.parent}:{fleet.environment['PYTHONPATH']}"
    status, _, err = await fleet.run("timeline", "-o", str(fleet.root / "t.html"))
    assert (status, err) == (
        3,
        "decnet-reaper: matplotlib is missing: pip install matplotlib\n",
    )


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address that a page might ask, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        serving = threading.Thread(target=listening.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        serving.join()


@pytest.mark.browser
def test_a_browser_shows_the_page_and_asks_nobody(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    chromium = Chromium(tmp_path)
    address, asked = server
    rows = story()
    markup = (
        f"<img src={address}/a><script>fetch('{address}/b')</script><link rel=stylesheet href={address}/c>"
    )
    rows[1] |= {"error": f"worker died during operation {markup}", "decky_name": f"{markup}"}
    page = tmp_path / "timeline.html"
    page.write_bytes(render(".html", rows, now=NOW, cut=False))

    dom = chromium.dom(page.as_uri())
    assert len(re.findall(r'<tr id="row-', dom)) == len(rows)
    assert "<script" not in dom
    assert "&lt;img src=" in dom
    for each in story():
        assert f'href="#row-{each["id"]}"' in dom

    drawn = colours_of(chromium.picture(page.as_uri(), 1200, 1400))
    assert {GREEN, RED, BLUE, GREEN_WAIT} <= drawn
    assert HIGHLIGHT not in drawn
    led_to = colours_of(chromium.picture(f"{page.as_uri()}#row-{rows[0]['id']}", 1200, 1400))
    assert HIGHLIGHT in led_to, "the row that a bar leads to is marked"
    assert asked == []


@pytest.mark.browser
def test_a_narrow_window_shows_every_cell(tmp_path: Path) -> None:
    rows = story()
    rows[1] |= {"decky_name": "d" * 128, "error": "no route to the registry " * 20}
    page = escape(render(".html", rows, now=NOW, cut=False).decode(), quote=True)
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<iframe width="420" height="2000" srcdoc="{page}"></iframe><pre></pre><script>onload = () => {{
        const cells = [...document.querySelector("iframe").contentDocument.querySelectorAll("td")]
        const edges = cells.map(cell => cell.getBoundingClientRect().right)
        document.querySelector("pre").textContent = `${{cells.length}} ${{Math.ceil(Math.max(...edges))}}`
        }}</script>"""
    )
    found = re.search(r"<pre>(\d+) (\d+)</pre>", Chromium(tmp_path).dom(frame.as_uri()))
    assert found is not None
    assert int(found[1]) == 9 * len(rows)
    assert int(found[2]) <= 420


@pytest.mark.browser
def test_the_browser_would_have_told_the_server(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    """The test above means something: a page that asks is heard."""
    address, asked = server
    page = tmp_path / "asks.html"
    page.write_text(f"<img src={address}/a>")
    Chromium(tmp_path).dom(page.as_uri())
    assert asked == ["/a"]
