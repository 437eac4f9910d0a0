"""Commits that are seen before they would survive a power cut, and the wait until they do."""

import asyncio
from contextlib import suppress

from repo.engine import Engine
from repo.errors import StoreError

_WITHIN = 0.005
"""Seconds until what nobody waits for is made durable, unless something that is waited for comes before."""


class Durability:
    """How much of what this process committed would survive a power cut.

    Args:
        engine: an open one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._early = 0  # commits that were seen before they were durable
        self._synced = 0  # how many of them are by now
        self._sync: asyncio.Task[None] | None = None
        self._unasked: asyncio.Task[None] | None = None

    def note(self, durable: bool) -> None:
        """A commit was done: a durable one takes all before it to the disk, another is synced soon."""
        if durable:
            self._synced = self._early
            return
        self._early += 1
        if self._unasked is None or self._unasked.done():
            self._unasked = asyncio.create_task(self._sync_unasked(), name="sync that nobody waits for")

    async def wait(self) -> None:
        """Return when all that was noted by now would survive a power cut.

        Raises:
            StoreUnavailable: it may not.
        """
        wanted = self._early
        while self._synced < wanted:
            if self._sync is None:
                self._sync = asyncio.create_task(self._sync_all(), name="sync")
            await asyncio.shield(self._sync)

    async def finish(self) -> None:
        """Return when nothing is left to be done."""
        if self._unasked is not None:
            await self._unasked

    async def _sync_all(self) -> None:
        until = self._early
        try:
            await self._engine.sync()
            self._synced = max(self._synced, until)
        except Exception as error:
            raise (self._engine.explained(error) or error) from None
        finally:
            self._sync = None

    async def _sync_unasked(self) -> None:
        with suppress(StoreError):  # every later write says it
            while self._synced < self._early:
                await asyncio.sleep(_WITHIN)
                await self.wait()
