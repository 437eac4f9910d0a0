"""The reaper as a daemon: a sweep at the start, then at regular times, and at once when a worker dies.

Regular sweeps are an arq cron job, unique among all reapers. It stops with Redis and follows the wall clock,
so a backstop on the monotonic clock sweeps whenever the cron stays away. In between the kernel tells of a
worker's death: a pidfd of each owner becomes readable when its process ends (pidfd_open(2)). An owner is
known from a sweep, or because it said itself that it goes to work. And hosts are looked for
more often where they are soon lost, and when one that was absent will have been so for long enough.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import aclosing

from reaper.settings import ReaperSettings
from reaper.sweep.hosts import Hosts
from reaper.sweep.listener import Listener, listening
from reaper.sweep.report import Report, Scope, SignOfLife
from reaper.sweep.sweeper import Sweeper
from repo.errors import StoreReplaced, StoreUnavailable
from repo.factory import repository_of
from worker.liveness.errors import LocksReplaced, LocksUnusable
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.logging.emit import emit
from worker.queue import Outage, Queue, SweepCron
from worker.service.presence import Keep, present
from worker.service.reload import reread
from worker.service.skeleton import Service


class Sweeps:
    """Makes sweeps, one at a time, whoever asks for them.

    Args:
        sweeper: makes one.
        interval: seconds between two.
        lose: called with why there can be no more: the store or the lock directory was replaced.
        standing: given the report of each.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        interval: float,
        lose: Callable[[Exception], None],
        standing: Callable[[Report], None] = lambda report: None,
    ) -> None:
        self._sweeper = sweeper
        self._interval = interval
        self._lose = lose
        self._standing = standing
        self._one_at_a_time = asyncio.Lock()
        self._last = -interval
        self._watched: dict[Owner, int] = {}
        self._asked = asyncio.Event()
        self._asked_by = "death"
        self._absence: asyncio.TimerHandle | None = None
        self._sign_of_life = SignOfLife()

    async def sweep(self, trigger: str) -> None:
        """Make a sweep, unless one was just made (arq's cron makes up for missed ones all at once)."""
        async with self._one_at_a_time:
            if trigger in {"cron", "backstop"} and time.monotonic() - self._last < self._interval / 2:
                return
            try:
                report = await self._sweeper.run(trigger, Scope(with_queue=trigger != "start"))
                for owner in report.owners:
                    self.watch(owner)
                self._sign_of_life.log(report)
                self._standing(report)
            except (StoreReplaced, LocksReplaced) as error:
                self._lose(error)
            except (StoreUnavailable, LocksUnusable) as error:
                emit("reaper.sweep_failed", trigger=trigger, reason=str(error))
            finally:
                self._last = time.monotonic()
                self._await_absence()

    async def cron(self) -> None:
        """What arq's cron calls."""
        await self.sweep("cron")

    async def backstop(self) -> None:
        """Make the sweeps that the cron doesn't make, for ever."""
        while True:
            await asyncio.sleep(max(0.0, self._last + 1.5 * self._interval - time.monotonic()))
            if time.monotonic() - self._last >= 1.5 * self._interval:
                await self.sweep("backstop")

    async def asked(self) -> None:
        """Make a sweep whenever an owner has died or hosts are to be looked for, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.sweep(self._asked_by)

    async def close_run(self, run: str, reason: str) -> bool:
        """Close the rows of a unit's run that ended, for this reason; False if that has to be tried again.

        Args:
            run: the invocation id.
            reason: what systemd says that it died of.
        """
        async with self._one_at_a_time:
            try:
                await self._sweeper.run("unit", Scope(with_queue=False, run=run, died_of=reason))
            except (StoreUnavailable, LocksUnusable):
                return False  # logged at the next sweep
        return True

    def watch(self, owner: Owner) -> None:
        """Make a sweep as soon as this owner's process ends."""
        if owner in self._watched:
            return
        try:
            descriptor = owner.open_pidfd()
        except OSError:
            return  # no descriptor is left: the next regular sweep finds its end
        if descriptor is None:
            self._ask("death")
            return
        self._watched[owner] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._died, owner)

    def _died(self, owner: Owner) -> None:
        descriptor = self._watched.pop(owner)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._ask("death")

    def _await_absence(self) -> None:
        if self._absence is not None:
            self._absence.cancel()
            self._absence = None
        if (due_in := self._sweeper.due_in) < self._interval:  # else a regular sweep comes first
            self._absence = asyncio.get_running_loop().call_later(due_in, self._ask, "absence")

    def _ask(self, trigger: str) -> None:
        self._asked_by = trigger
        self._asked.set()


async def run_reaper(settings: ReaperSettings) -> None:
    """Run one reaper until it is told to stop. Its first sweep needs no Redis.

    Raises:
        StoreUnavailable, QueueUnusable, LocksUnusable: at the start; nothing was changed.
        StoreReplaced, LocksReplaced: another file is where the store was, or another lock directory; whoever
            starts this again has it used.
    """
    queue = Queue(settings.redis)
    async with repository_of(settings) as repository, aclosing(Hosts(settings)) as hosts:
        locks = DeckyLocks.for_daemon(settings)
        queue.store = await repository.identify()
        await queue.refuse_others(settings.host_uuid)
        outage = Outage(queue.name)
        sweeper = Sweeper(repository, queue, locks, settings, outage=outage, hosts=hosts)
        async with present(settings, "reaper", sweeper.came_back) as keep_presence:
            with locks.directory.joined("reaper"):
                await _serve(settings, sweeper, queue, outage, keep_presence)
        await queue.close()
    emit("reaper.stopped", pid=os.getpid())


async def _serve(
    settings: ReaperSettings, sweeper: Sweeper, queue: Queue, outage: Outage, keep_presence: Keep | None
) -> None:
    def reload() -> str:
        nonlocal settings
        settings = reread(settings)
        sweeper.reload(settings)
        return "settings read again"

    def standing(report: Report) -> None:
        running = sum(row["status"] == "running" for row in report.seen)
        service.notifier.status(f"{running} running, {report.rows - running} pending{outage.status}")

    async with Service(reload) as service:
        sweeps = Sweeps(sweeper, settings.reap_interval, service.lose, standing)
        cron = SweepCron(
            settings.redis,
            sweeps.cron,
            interval=settings.reap_interval,
            host_uuid=settings.host_uuid,
            outage=outage,
            store=queue.store,
        )
        await sweeps.sweep("start")
        async with listening(settings.runtime_dir, Listener(sweeps.watch, sweeps.close_run)):
            emit(
                "reaper.started",
                pid=os.getpid(),
                interval_s=float(settings.reap_interval),
                database=settings.database_name,
                redis=queue.name,
                host_uuid=settings.host_uuid,
            )
            service.supervise("cron", cron.run)
            service.supervise("backstop", sweeps.backstop)
            service.supervise("asked", sweeps.asked)
            if keep_presence is not None:
                service.supervise("presence", keep_presence)
            await service.run(f"a sweep every {settings.reap_interval:g} s")
    await cron.close()
