"""The reaper as a daemon: a pass at the start, then on every beat, and at once when a worker dies.

The beat is an arq cron job, unique among all reapers. It stops with Redis and follows the wall clock, so a
backstop on the monotonic clock makes a pass whenever the beat stays away. Between beats the kernel tells of
a worker's death: a pidfd of each owner becomes readable when its process ends (pidfd_open(2)). An owner is
known from a pass, or because it said itself that it goes to work.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable

from reaper.settings import ReaperSettings
from reaper.sweep.listener import Listener, listening
from reaper.sweep.report import Report, Watching
from reaper.sweep.sweeper import Sweeper
from repo.errors import StoreReplaced, StoreUnavailable
from repo.factory import get_repository
from worker.liveness.locks import DeckyLocks, LocksUnusable
from worker.liveness.owner import Owner
from worker.logging.events import emit
from worker.queue import Outage, Queue, SweepCron
from worker.reload import reread
from worker.systemd import Notifier


class Beat:
    """Makes passes, one at a time, whoever asks for them.

    Args:
        sweeper: makes the pass.
        interval: seconds between two passes.
        standing: told the report of each pass.

    Attributes:
        stop: set by whoever wants no more passes, and when the store is lost.
        replaced: why the store is lost.
    """

    def __init__(
        self, sweeper: Sweeper, interval: float, standing: Callable[[Report], None] = lambda report: None
    ) -> None:
        self.stop = asyncio.Event()
        self.replaced: StoreReplaced | None = None
        self._sweeper = sweeper
        self._interval = interval
        self._standing = standing
        self._one_at_a_time = asyncio.Lock()
        self._last = -interval
        self._watched: dict[Owner, int] = {}
        self._death = asyncio.Event()
        self._watching = Watching()

    async def tick(self, trigger: str) -> None:
        """Make a pass, unless one was just made (arq's cron makes up for missed beats all at once)."""
        async with self._one_at_a_time:
            if trigger in {"cron", "backstop"} and time.monotonic() - self._last < self._interval / 2:
                return
            try:
                report = await self._sweeper.run(trigger, with_queue=trigger != "start")
                for owner in report.owners:
                    self.watch(owner)
                self._watching.tell(report)
                self._standing(report)
            except StoreReplaced as error:
                self.replaced = error
                self.stop.set()
            except (StoreUnavailable, LocksUnusable) as error:
                emit("reaper.sweep_failed", trigger=trigger, reason=str(error))
            self._last = time.monotonic()

    async def cron(self) -> None:
        """What arq's cron calls."""
        await self.tick("cron")

    async def backstop(self) -> None:
        """Make the passes that the cron doesn't make, for ever."""
        while True:
            await asyncio.sleep(max(0.0, self._last + 1.5 * self._interval - time.monotonic()))
            if time.monotonic() - self._last >= 1.5 * self._interval:
                await self.tick("backstop")

    async def deaths(self) -> None:
        """Make a pass whenever an owner has died, for ever."""
        while True:
            await self._death.wait()
            self._death.clear()
            await self.tick("death")

    async def close_run(self, run: str, reason: str) -> bool:
        """Close the rows of a unit's run that ended, for this reason; False if that has to be tried again.

        Args:
            run: the invocation id.
            reason: what systemd says that it died of.
        """
        async with self._one_at_a_time:
            try:
                await self._sweeper.run("unit", with_queue=False, run=run, died_of=reason)
            except (StoreUnavailable, StoreReplaced, LocksUnusable):
                return False  # said at the next beat
        return True

    def watch(self, owner: Owner) -> None:
        """Make a pass as soon as this owner's process ends."""
        if owner in self._watched:
            return
        if (descriptor := owner.open_pidfd()) is None:
            self._death.set()
            return
        self._watched[owner] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._died, owner)

    def _died(self, owner: Owner) -> None:
        descriptor = self._watched.pop(owner)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._death.set()


async def run_reaper(settings: ReaperSettings) -> None:
    """Run one reaper until it is told to stop. Its first pass needs no Redis.

    Raises:
        StoreUnavailable, QueueUnusable, LocksUnusable: at the start; nothing was changed.
        StoreReplaced: another file is where the store was; whoever starts this again has it used.
    """
    locks = DeckyLocks(settings.runtime_dir)
    queue = Queue(settings.redis)
    async with get_repository(url=settings.database) as repository:
        queue.store = await repository.identify()
        await queue.refuse_others(settings.host_uuid)
        notifier = Notifier()
        outage = Outage(queue.name)
        sweeper = Sweeper(repository, queue, locks, settings, outage=outage)

        def standing(report: Report) -> None:
            running = sum(row["status"] == "running" for row in report.seen)
            notifier.status(f"{running} running, {report.rows - running} pending{outage.status}")

        beat = Beat(sweeper, settings.reap_interval, standing)
        cron = SweepCron(
            settings.redis,
            beat.cron,
            interval=settings.reap_interval,
            host_uuid=settings.host_uuid,
            outage=outage,
            store=queue.store,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, beat.stop.set)

        def reload() -> None:
            nonlocal settings
            notifier.reloading()
            settings = reread(settings)
            sweeper.reload(settings)
            notifier.ready("settings read again")

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        await beat.tick("start")
        async with listening(settings.runtime_dir, Listener(beat.watch, beat.close_run)):
            emit(
                "reaper.started",
                pid=os.getpid(),
                interval_s=settings.reap_interval,
                database=settings.database,
                redis=queue.name,
                host_uuid=settings.host_uuid,
            )
            notifier.ready(f"a pass every {settings.reap_interval:g} s")
            background = [
                asyncio.create_task(task)
                for task in (cron.run(), beat.backstop(), beat.deaths(), notifier.watchdog())
            ]
            await beat.stop.wait()
        notifier.stopping()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await cron.close()
        await queue.close()
    if beat.replaced is not None:
        raise beat.replaced
    emit("reaper.stopped", pid=os.getpid())
