"""The skeleton of a daemon, which worker and reaper share: start, ready, reload, watchdog, stop.

Everything that a daemon does in the background is supervised here. A task that meets an error that nobody
foresaw is logged and started again; none ends silently. The watchdog is fed only while all of them are well.
What a daemon stands on (its store, its lock directory) can be lost: then it ends, and says so.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from repo.errors import StoreReplaced
from worker.liveness.errors import LocksReplaced
from worker.logging.emit import emit
from worker.service.systemd import Notifier

_PAUSE_S: Final = (0.5, 5.0)
"""From a task's failure to its next start: at first, and at most."""
_WELL_AFTER_S: Final = 10.0
"""A task that was started again counts as well once it has run for so long."""


class Service:
    """One daemon, from its start to its end. Use as an async context manager.

    Args:
        reload: reads the settings again, on SIGHUP; returns a status.

    Attributes:
        notifier: reports to the service manager.
        stop: set when the daemon is to end: by a signal, or since it has lost what it stands on.
        lost: the error that says so.
    """

    def __init__(self, reload: Callable[[], str]) -> None:
        self.notifier = Notifier()
        self.stop = asyncio.Event()
        self._reload = reload
        self.lost: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._unwell: dict[str, asyncio.TimerHandle] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_now)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.lost is not None and error is None:
            raise self.lost

    def lose(self, error: Exception) -> None:
        """End the daemon with this error: what it stands on was taken away."""
        self.lost = self.lost or error
        self.stop.set()

    def supervise(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Keep a task running until the daemon ends.

        Args:
            name: for the log.
            work: called to start it, and to start it again. It runs for ever.
        """
        self._tasks.append(asyncio.create_task(self._keep(name, work), name=name))

    async def run(self, status: str) -> None:
        """Say that the daemon is ready, and wait until it is to end."""
        self.notifier.ready(status)
        self._tasks.append(asyncio.create_task(self.notifier.watchdog(lambda: not self._unwell)))
        await self.stop.wait()
        self.notifier.stopping()

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        pause = _PAUSE_S[0]
        while True:
            try:
                await work()
                reason: Exception = RuntimeError("it ended, and nobody asked it to")
            except (StoreReplaced, LocksReplaced) as error:
                return self.lose(error)
            except Exception as error:  # whatever it is, the task must go on
                reason = error
            if name not in self._unwell:
                pause = _PAUSE_S[0]
            self._falls_ill(name)
            emit(
                "daemon.task_failed", task=name, reason=f"{type(reason).__name__}: {reason}", exc_info=reason
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_S[1])

    def _falls_ill(self, name: str) -> None:
        if (recovery := self._unwell.get(name)) is not None:
            recovery.cancel()
        loop = asyncio.get_running_loop()
        self._unwell[name] = loop.call_later(_WELL_AFTER_S, self._unwell.pop, name)

    def _reload_now(self) -> None:
        self.notifier.reloading()
        try:
            self.notifier.ready(self._reload())
        except Exception as error:  # the settings in force stay
            emit("daemon.reload_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
            self.notifier.ready("the settings could not be read again")
