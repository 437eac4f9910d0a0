"""Everything that is done to the processes of a storm: one function each, chosen at random."""

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from examples.fleet.network import BOTH
from tests.storm.stores import Store
from tests.support.fleet import Daemon, Fleet
from tests.support.machine.wall_clock import WallClock, find_libfaketime
from tests.support.network.namespaces import Namespace
from worker.liveness.lock_directory import find_lock_directory

_HARMLESS = [signal.SIGHUP, signal.SIGCONT, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG]


class Storm:
    """What a fault may touch.

    Attributes:
        fleet: queue, store, settings.
        places: who runs now: worker-0, worker-1, reaper-0, reaper-1; whoever dies is started again.
        submitters: the masters' processes.
        notes: the directory of the stand-in's notes.
        store: what the rows are in, and the hosts that use it.
        chance: the storm's only source of chance.
        later: what goes on in the background, such as waking up who was stopped.
        kept: who starts again whoever dies, by the same names and the masters'.
        starting: held while nothing may be started.
        clock: the wall clock of all processes; None where libfaketime is missing.
    """

    def __init__(self, fleet: Fleet, notes: Path, store: Store, seed: str) -> None:
        self.fleet, self.notes, self.store = fleet, notes, store
        self.chance = random.Random(seed)  # noqa: S311
        self.places: dict[str, Daemon] = {}
        self.submitters: dict[str, asyncio.subprocess.Process] = {}
        self.later: set[asyncio.Task[None]] = set()
        self.kept: dict[str, asyncio.Task[None]] = {}
        self.starting = asyncio.Lock()
        library = find_libfaketime()
        self.clock = None if library is None else WallClock(fleet.root / "clock", library)
        if self.clock is not None:
            fleet.environment |= self.clock.environment
            del fleet.environment["FAKETIME_NO_CACHE"]  # a look at the file each second is enough, and cheap
            fleet.environment["FAKETIME_CACHE_DURATION"] = "1"

    def some(self, kind: str) -> int | None:
        """The pid of one living process of a kind."""
        pids = [
            d.pid for name, d in self.places.items() if name.startswith(kind) and d.process.returncode is None
        ]
        return self.chance.choice(sorted(pids)) if pids else None

    def engines(self) -> list[int]:
        """The stand-in's processes."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and str(self.notes).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return [pid for pid in found if pid not in {s.pid for s in self.submitters.values()}]

    def lock_directories(self) -> list[Path]:
        """Of each host."""
        places = [self.store.place(number).environment for number in range(len(self.store.hosts))]
        found = [Path(place["DECNET_REAPER_STATE_DIR"]) / "locks" for place in places]
        return found or [find_lock_directory(self.fleet.settings)]

    async def start_queue(self) -> None:
        """The queue's server, for every host."""
        await self.fleet.start_queue(*self.store.queue_options)

    def in_background(self, work: Awaitable[None]) -> None:
        """Let something go on while the storm does."""

        async def task() -> None:
            await work

        started = asyncio.create_task(task())
        self.later.add(started)
        started.add_done_callback(self.later.discard)


def send(pid: int | None, number: signal.Signals) -> None:
    """A signal to whoever is still there."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def _wake(pid: int | None, seconds: float) -> None:
    await asyncio.sleep(seconds)
    send(pid, signal.SIGCONT)


async def _kill_worker(storm: Storm) -> None:
    send(storm.some("worker"), signal.SIGKILL)


async def _kill_reaper(storm: Storm) -> None:
    send(storm.some("reaper"), signal.SIGKILL)


async def _kill_all(storm: Storm) -> None:
    for daemon in storm.places.values():
        send(daemon.pid, signal.SIGKILL)


async def _power_loss(storm: Storm) -> None:
    """Everything dies, and what a store makes anew at its next start is gone."""
    async with storm.starting:
        processes = [*(d.process for d in storm.places.values()), *storm.submitters.values()]
        for process in processes:
            send(process.pid, signal.SIGKILL)
        for process in processes:
            await process.wait()
        storm.store.lose_what_it_can()


async def _tell_worker_to_stop(storm: Storm) -> None:
    send(storm.some("worker"), signal.SIGTERM)


async def _stop_a_while(storm: Storm) -> None:
    pid = storm.some(storm.chance.choice(["worker", "reaper"]))
    send(pid, signal.SIGSTOP)
    storm.in_background(_wake(pid, storm.chance.choice([0.2, 1.0, 3.0, 12.0])))


async def _hang_worker(storm: Storm) -> None:
    """Stopped for good: its row is closed past the deadline, and whoever kills it helps."""
    send(storm.some("worker"), signal.SIGSTOP)


async def _set_clock(storm: Storm) -> None:
    offset = storm.chance.choice(["+0", "+90s", "-90s", "+1d", "-1d"])
    if storm.clock is not None:
        storm.clock.set(offset)


async def _remove_locks(storm: Storm) -> None:
    """A directory that is gone, or is half gone since a daemon makes a file in it meanwhile."""
    shutil.rmtree(storm.chance.choice(storm.lock_directories()), ignore_errors=True)


async def _signals(storm: Storm) -> None:
    pid = storm.some(storm.chance.choice(["worker", "reaper"]))
    for _ in range(30):
        send(pid, storm.chance.choice(_HARMLESS))


async def _kill_engine(storm: Storm) -> None:
    if pids := storm.engines():
        send(storm.chance.choice(sorted(pids)), signal.SIGKILL)


async def _stop_engine(storm: Storm) -> None:
    if pids := storm.engines():
        pid = storm.chance.choice(sorted(pids))
        send(pid, signal.SIGSTOP)
        storm.in_background(_wake(pid, storm.chance.choice([0.2, 2.0])))


async def _kill_submitter(storm: Storm) -> None:
    if storm.submitters:
        send(storm.chance.choice(sorted(storm.submitters.items()))[1].pid, signal.SIGKILL)


async def _empty_queue(storm: Storm) -> None:
    with suppress(RedisError, OSError):
        async with Redis(unix_socket_path=str(storm.fleet.socket), socket_timeout=1) as redis:
            await redis.flushall()


async def _restart_queue(storm: Storm) -> None:
    await storm.fleet.kill_queue()
    await asyncio.sleep(storm.chance.choice([0.0, 0.5, 3.0]))
    await storm.start_queue()


async def _freeze_queue(storm: Storm) -> None:
    if storm.fleet.queue is not None:
        send(storm.fleet.queue.pid, signal.SIGSTOP)
        await _wake(storm.fleet.queue.pid, storm.chance.choice([0.5, 2.0]))


async def _trouble_store(storm: Storm) -> None:
    await storm.store.trouble(storm.chance)


async def _cut_cable(storm: Storm) -> None:
    """A host's packets are dropped, out, in, all or some: for less or more than it takes to be lost."""
    if storm.store.hosts:
        host = storm.chance.choice(storm.store.hosts)
        chains = storm.chance.choice([BOTH, ("INPUT",), ("OUTPUT",), ()])
        host.cut(*chains) if chains else host.lose(0.3)
        storm.in_background(_mend(host, storm.chance.choice([0.5, 3.0, 12.0, 25.0])))


async def _mend(host: Namespace, seconds: float) -> None:
    await asyncio.sleep(seconds)
    host.mend()


Fault = Callable[[Storm], Awaitable[None]]

_WEIGHTS: dict[Fault, int] = {
    _kill_worker: 8,
    _kill_reaper: 4,
    _kill_all: 1,
    _tell_worker_to_stop: 3,
    _stop_a_while: 5,
    _signals: 2,
    _kill_engine: 3,
    _stop_engine: 2,
    _kill_submitter: 2,
    _empty_queue: 2,
    _restart_queue: 2,
    _freeze_queue: 1,
    _trouble_store: 3,
    _hang_worker: 1,
    _set_clock: 2,
    _remove_locks: 1,
    _power_loss: 1,
    _cut_cable: 3,
}


def schedule(seed: str) -> Iterator[tuple[float, Fault]]:
    """Pauses in seconds and faults, the same for the same seed."""
    chance = random.Random(f"{seed}-schedule")  # noqa: S311
    faults = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=1_000_000)
    return ((chance.choice([0.05, 0.2, 0.5, 1.0]), fault) for fault in faults)
