"""The live page with 2,000 deckies and 100,000 rows, in Chromium: `python -m benchmarks.page [--quick]`.

All rows ended within the last day, so that the figures count all of them; every decky has an open row, and in
each second fifty end and fifty begin. "Rows shown" is from the click to the tables being filled. An update is
the CPU of the page's main thread for one second: what the server said, script, layout and paint.
"""

import asyncio
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.report import Result, command
from repo.base import BaseRepository
from repo.models.times import to_text
from repo.repository.ids import new_id
from tests.reaper.web.conftest import LivePage
from tests.support.fleet import running_fleet
from tests.support.programs.browser_tab import Tab, open_tab

DECKIES, ROWS, EACH_SECOND = 2_000, 100_000, 50
FILLED = "document.querySelectorAll('#ended tr').length == 200 && document.querySelector('#pending tr')"
PAINTED = """new Promise(met => new PerformanceObserver(
    found => found.getEntriesByName('first-contentful-paint').forEach(each => met(each.startTime))
).observe({type: 'paint', buffered: true}))"""


def fill(path: Path) -> None:
    """A day of rows, one in ten failed; and a pending row of each decky."""
    step = timedelta(days=1) / ROWS
    begin = datetime.now(UTC) - timedelta(days=1)
    columns = "id, decky_name, operation, status, outcome, error, started_at, claimed_at, updated_at"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        for n in range(ROWS):
            at = [to_text(begin + n * step + timedelta(seconds=after)) for after in (0, 1, 3, 3)]
            word, error = ("succeeded", None) if n % 10 else ("failed", "no such image: decky:latest")
            row = (new_id(), f"decky-{n % DECKIES:04}", "mutate", word, word, error, *at)
            connection.execute(
                f"INSERT INTO decky_lifecycle ({columns}, completed_at) VALUES (?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
                row,
            )


async def churn(repository: BaseRepository, running: list[str], pending: list[str]) -> None:
    """A second's work: what runs ends, the next begin, and as many are accepted."""
    for lifecycle_id in running:
        await repository.end_lifecycle(lifecycle_id, outcome="succeeded", owner="me")
    running[:] = pending[:EACH_SECOND]
    del pending[:EACH_SECOND]
    for lifecycle_id in running:
        claim = await repository.claim_lifecycle(lifecycle_id, "me")
        name = claim.row["decky_name"] if claim else ""
        data = {"decky_name": name, "operation": "mutate"}
        pending.append(await repository.create_lifecycle(data))


async def load(tab: Tab, url: str) -> tuple[float, float]:
    """Seconds until the first paint, and until the tables are filled."""
    await tab.open("about:blank")
    await tab.open(url)
    await tab.until(FILLED)
    filled = await tab.js("performance.now()")
    return await tab.js(PAINTED) / 1000, filled / 1000


async def busy_s(tab: Tab) -> float:
    """Seconds of CPU that the main thread has used so far."""
    metrics = (await tab.call("Performance.getMetrics"))["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")


async def measure(quick: bool) -> list[Result]:
    """Loads, then seconds of work."""
    loads, seconds = (3, 10) if quick else (9, 60)
    async with running_fleet() as fleet, fleet.client() as client:
        await asyncio.to_thread(fill, Path(fleet.settings.database))
        pending = [
            await client.repository.create_lifecycle({"decky_name": f"decky-{n:04}", "operation": "mutate"})
            for n in range(DECKIES)
        ]
        running: list[str] = []
        await churn(client.repository, running, pending)
        page = LivePage(fleet)
        await page.start()
        with TemporaryDirectory() as directory:
            async with open_tab(Path(directory)) as tab:
                await tab.window(1280, 900)
                loaded = [await load(tab, page.url) for _ in range(loads)]
                await tab.until("document.querySelectorAll('#figures svg').length == 3")
                await tab.call("Performance.enable", timeDomain="threadTicks")
                updates = []
                cpu = cpu_s(page.daemon.pid)
                for _ in range(seconds):
                    before = await busy_s(tab)
                    await asyncio.gather(churn(client.repository, running, pending), asyncio.sleep(1))
                    updates.append((await busy_s(tab) - before) * 1000)
                cpu = (cpu_s(page.daemon.pid) - cpu) / seconds * 1000
        await page.http.aclose()
    return [
        Result("first paint", median(each for each, _ in loaded), "limit", 1, "s"),
        Result("rows shown", median(each for _, each in loaded), "limit", 1, "s"),
        Result("an update, median", median(updates), "limit", 100, "ms"),
        Result(f"an update, the longest of {seconds}", max(updates), "limit", 100, "ms"),
        Result("the daemon's CPU for each second", cpu, "limit", 200, "ms"),
    ]


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    command(__doc__, measure)
