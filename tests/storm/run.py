"""One storm: it rages, it calms down, it is judged."""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.model.replay import replay
from tests.storm import checker, engine
from tests.storm.chaos import Storm, schedule, send
from tests.storm.stores import STORES
from tests.support.fleet import Fleet

CALM_S = 60.0
_LEAST_ROWS = 20
_PATIENCE_S = 300.0
_SETTINGS = {
    "runtime": "compose",
    "operation_timeout": "8",
    "overdue_grace": "2",
    "stop_grace": "1",
    "max_attempts": "2",
    "max_jobs": "4",
    "pending_ttl": "864000",  # the clock is set, and no row is to be given up for that
}


class Outcome(NamedTuple):
    """What a storm came to.

    Attributes:
        wrong: what must not be, says the checker; empty if all is well.
        strayed: where the run is no path of the model, says the replay; empty if all is well.
        done: faults that were done, how often each.
        rows, looks: how much there was to look at, and how often it was looked at.
        kept: where everything lies, if something is wrong.
    """

    wrong: list[str]
    strayed: list[str]
    done: Counter[str]
    rows: int
    looks: int
    kept: Path

    @property
    def steps(self) -> int:
        """How many faults."""
        return self.done.total()


async def storm(
    seed: int, seconds: float, most_steps: int | None = None, kind: str = "sqlite", calm: float = CALM_S
) -> Outcome:
    """Let a storm rage over a kind of store, until its time is over or so many faults are done; judge it."""
    root = Path(tempfile.mkdtemp(prefix="storm-"))
    notes = root / "notes"
    notes.mkdir()
    fleet = Fleet(root, **_SETTINGS)
    fleet.set(compose_command=f"{sys.executable} -S {engine.__file__} {notes}")
    store = STORES[kind]()
    await store.make(fleet)
    await fleet.start_queue(*store.queue_options)
    read = store.read
    watch = checker.Watch(read, notes)
    watch.start()
    weather = Storm(fleet, notes, store, f"{seed}")
    try:
        done = await _rage(weather, seed, seconds, most_steps)
        await _calm(weather, read, calm)
        watch.end()
        watch.look()
        wrong = watch.found + checker.verdict(read, notes)
        rows = read("SELECT * FROM decky_lifecycle ORDER BY id")
        history = read("SELECT id, was, is_now FROM storm ORDER BY seq")
        _keep_lines(root / "rows", rows)
        _keep_lines(root / "history", history)
    finally:
        watch.end()
        await _end(weather)
        store.remove()
    lines = fleet.lines()
    if done["set_clock"]:  # then times tell nothing
        lines = [{name: value for name, value in line.items() if name != "timestamp"} for line in lines]
    strayed = replay(((id_, was, is_now) for id_, was, is_now in history), lines)
    _keep_logs(fleet, root)
    if not wrong and not strayed:
        shutil.rmtree(root, ignore_errors=True)
    return Outcome(wrong, strayed, done, len(rows), watch.looks, root)


async def _rage(weather: Storm, seed: int, seconds: float, most_steps: int | None) -> Counter[str]:
    for kind in ("worker", "reaper", "submitter"):
        for number in range(2):
            _start_keeping(weather, f"{kind}-{number}")
    done = Counter[str]()
    await _accepted(weather, 1)
    begun = time.monotonic()
    for pause, fault in schedule(f"{seed}"):
        if time.monotonic() - begun > seconds or done.total() == most_steps:
            break
        await asyncio.sleep(pause)
        await fault(weather)
        done[fault.__name__.strip("_")] += 1
    await _accepted(weather, _LEAST_ROWS)
    await _stop_keeping(weather, "submitter")
    return done


def _start_keeping(weather: Storm, name: str) -> None:
    weather.kept[name] = asyncio.create_task(_keep(weather, name))


async def _stop_keeping(weather: Storm, kind: str) -> None:
    keepers = [keeper for name, keeper in weather.kept.items() if name.startswith(kind)]
    for keeper in keepers:
        keeper.cancel()
    await asyncio.gather(*keepers, return_exceptions=True)


async def _accepted(weather: Storm, rows: int) -> None:
    """Wait until the masters were told that so many rows are accepted, however slow the machine is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while len(checker.lines(weather.notes / "acknowledged")) < rows:
                await asyncio.sleep(0.1)


async def _keep(weather: Storm, name: str) -> None:
    """Start a process again whenever it has ended, as systemd would."""
    kind, _, number = name.partition("-")
    life = 0
    while True:
        async with weather.starting:
            if kind == "submitter":
                process = weather.submitters[name] = await _submitter(weather, number, life)
            else:
                place = weather.store.place(int(number))
                weather.places[name] = await weather.fleet.start_in(place.wrapper, kind, **place.environment)
                process = weather.places[name].process
        await process.wait()
        life += 1
        await asyncio.sleep(0.1)


async def _submitter(weather: Storm, number: str, life: int) -> asyncio.subprocess.Process:
    given = [number, f"{number}-{life}", str(weather.notes), *weather.store.deckies]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storm.submitter", *given),
        env=weather.fleet.environment,
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )


async def _calm(weather: Storm, read: checker.Read, seconds: float) -> None:
    """Nothing more goes wrong: the masters are silent, a worker and a reaper are there, all rows may end.

    However slow the machine is: until these two are ready, and no commit has moved a row for so many seconds.
    """
    for process in weather.submitters.values():
        send(process.pid, signal.SIGKILL)
        await process.wait()
    await asyncio.gather(*weather.later)
    if weather.fleet.queue is None or weather.fleet.queue.returncode is not None:
        await weather.start_queue()
    for kind in ("worker", "reaper"):  # those of the storm may be stopped for good
        for number in range(len(weather.store.hosts) or 1):
            _start_keeping(weather, f"{kind}-{number + 2}")
            await _ready(weather, f"{kind}-{number + 2}", f"{kind}.started")
    unended = "SELECT id FROM decky_lifecycle WHERE status IN ('pending', 'running')"
    commits, end = -1, 0.0
    while read(unended):
        ((now_there,),) = read("SELECT count(*) FROM storm")
        if now_there != commits:
            commits, end = now_there, time.monotonic() + seconds
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.2)


async def _ready(weather: Storm, name: str, event: str) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while name not in weather.places or not weather.places[name].logged(event):
                await asyncio.sleep(0.1)


async def _end(weather: Storm) -> None:
    await _stop_keeping(weather, "")
    for process in weather.submitters.values():
        if process.returncode is None:
            process.kill()
            await process.wait()
    for daemon in weather.fleet.daemons:
        await daemon.kill()
    await weather.fleet.kill_queue()
    for pid in weather.engines():
        send(pid, signal.SIGKILL)


def _keep_lines(path: Path, rows: list[tuple[object, ...]]) -> None:
    path.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in rows))


def _keep_logs(fleet: Fleet, root: Path) -> None:
    for number, daemon in enumerate(fleet.daemons):
        lines = "".join(f"{line}\n" for line in [*daemon.lines, *daemon.garbage])
        (root / f"daemon-{number}.log").write_text(lines)
