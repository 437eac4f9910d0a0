"""What a command works with: the settings, and a store or a client that is open while it runs."""

import gc
import sys
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from reaper.settings import ReaperSettings
    from repo.base import BaseRepository
    from worker.client import LifecycleClient


T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio  # takes 0.05 s, which --help needn't wait for

    gc.freeze()  # what was imported stays: it need not be looked at again
    gc.enable()
    return asyncio.run(work)


def load_settings() -> "ReaperSettings":
    """The settings.

    Raises:
        SettingsError: one is unknown or can't be used.
    """
    from reaper.settings import ReaperSettings, load

    return load(ReaperSettings, strict=True)


def settings_of_command() -> "ReaperSettings":
    """The settings, for a command that ends; what it logs goes to the system's log."""
    settings = load_settings()
    import_log().configure_command(settings)
    return settings


def settings_of_daemon() -> "ReaperSettings":
    """The settings, for a process that logs to stderr."""
    settings = load_settings()
    import_log().configure(settings)
    return settings


def import_log() -> ModuleType:
    """`worker.logging.setup`, its structlog without rich.

    structlog.dev imports rich where it is there, for tracebacks that our log doesn't have: a seventh of a
    daemon's start, if this comes before any other module that logs. A master may want those tracebacks, so
    that this is for processes of our own.
    """
    modules = cast("dict[str, Any]", sys.modules)
    hidden = modules.setdefault("rich", None) is None
    try:
        from worker.logging import setup as log
    finally:
        if hidden:
            del modules["rich"]
    return log


def with_repository(work: "Callable[[BaseRepository], Coroutine[Any, Any, int]]") -> int:
    """Run `work` with an open store; returns its exit status. Needs no queue, and doesn't import one."""
    from repo.factory import get_repository

    async def opened() -> int:
        async with get_repository(url=load_settings().database) as repository:
            return await work(repository)

    return run(opened())


def with_client(work: "Callable[[LifecycleClient], Coroutine[Any, Any, int]]") -> int:
    """Run `work` with a client; returns its exit status."""
    settings = settings_of_command()
    from worker.client import LifecycleClient

    async def opened() -> int:
        async with LifecycleClient(settings) as client:
            return await work(client)

    return run(opened())
