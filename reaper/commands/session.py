"""What a command works with: the settings, and a store or a client that is open while it runs."""

import gc
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

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
    from worker.log import configure_command

    settings = load_settings()
    configure_command(settings)
    return settings


def settings_of_daemon() -> "ReaperSettings":
    """The settings, for a process that logs to stderr."""
    from worker.log import configure

    settings = load_settings()
    configure(settings)
    return settings


def with_repository(work: "Callable[[BaseRepository], Coroutine[Any, Any, int]]") -> int:
    """Run `work` with an open store; returns its exit status. Needs no queue, and doesn't import one."""
    from repo.factory import get_repository

    async def opened() -> int:
        async with get_repository(url=load_settings().database) as repository:
            return await work(repository)

    return run(opened())


def with_client(work: "Callable[[LifecycleClient], Coroutine[Any, Any, int]]") -> int:
    """Run `work` with a client; returns its exit status."""
    from worker.client import LifecycleClient

    async def opened() -> int:
        async with LifecycleClient(settings_of_command()) as client:
            return await work(client)

    return run(opened())
