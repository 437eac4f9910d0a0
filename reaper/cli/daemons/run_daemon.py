"""How worker and reaper are run: settings, log, and what happens where one can't start."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from reaper.cli import exit_status
from reaper.cli.logging import settings_of_daemon
from reaper.settings import ReaperSettings
from repo.errors import DecnetReaperError, StoreReplaced
from worker.service.systemd import Notifier

_PAUSE_S = 10.0
"""Between a failure to start and the exit, under systemd: units start again at once what has died, and
what is wrong with a store does not pass within a second. Less than half of WatchdogSec=."""


def run_daemon(main: Callable[[ReaperSettings], Coroutine[Any, Any, None]]) -> int:
    """Run a daemon to its end; returns its exit status."""
    settings = settings_of_daemon()
    try:
        asyncio.run(main(settings))
    except StoreReplaced:
        raise
    except DecnetReaperError as error:
        if error.exit_status == exit_status.UNAVAILABLE and "NOTIFY_SOCKET" in os.environ:
            status = exit_status.report_error(error)
            Notifier().status(f"can't start: {error}")
            time.sleep(_PAUSE_S)
            return status
        raise
    return 0
