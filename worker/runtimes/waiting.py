"""Waits for a runtime that is installed and does not answer now, as a worker does for Redis: logged once."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from worker.logging.emit import emit
from worker.runtimes.base import Runtime, RuntimeAway
from worker.runtimes.registry import make_runtime
from worker.service.systemd import Notifier
from worker.settings import WorkerSettings

_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 10.0


async def wait_for_runtime(settings: WorkerSettings) -> Runtime:
    """The runtime of a worker, once it can be used.

    Meanwhile the service manager is told that the worker is up, and what it waits for: its rows wait, and a
    restart would change nothing.

    Raises:
        RuntimeUnavailable: it is not installed.
    """
    runtime = make_runtime(settings)
    try:
        await runtime.check()
    except RuntimeAway as error:
        await _wait(runtime, str(error))
    return runtime


async def _wait(runtime: Runtime, reason: str) -> None:
    emit("runtime.unreachable", runtime=runtime.name, reason=reason)
    begun, pause = time.monotonic(), _PAUSE_S
    notifier = Notifier()
    notifier.ready(f"waiting for the {runtime.name} runtime: {reason}")
    watchdog = asyncio.create_task(notifier.watchdog(lambda: True))
    try:
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
            with suppress(RuntimeAway):
                await runtime.check()
                break
    finally:
        watchdog.cancel()
    emit("runtime.recovered", runtime=runtime.name, down_s=round(time.monotonic() - begun, 3))
