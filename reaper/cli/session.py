"""What a command works with: the settings, and a store that is open while it runs."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from reaper.settings import ReaperSettings, load
from repo.base import BaseRepository
from repo.factory import repository_of


def load_settings() -> ReaperSettings:
    """The settings.

    Raises:
        SettingsError: one is unknown or can't be used.
    """
    return load(ReaperSettings, strict=True)


def with_repository(work: Callable[[BaseRepository], Coroutine[Any, Any, int]]) -> int:
    """Run `work` with an open store; returns its exit status. Needs no queue, and doesn't import one."""

    async def opened() -> int:
        settings = load_settings()
        async with repository_of(settings) as repository:
            return await work(repository)

    return asyncio.run(opened())
