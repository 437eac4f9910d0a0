"""What a command that changes deckies works with: a client that is open while it runs."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from reaper.cli.logging import settings_of_command
from worker.client import LifecycleClient


def with_client(work: Callable[[LifecycleClient], Coroutine[Any, Any, int]]) -> int:
    """Run `work` with a client; returns its exit status."""
    settings = settings_of_command()

    async def opened() -> int:
        async with LifecycleClient(settings) as client:
            return await work(client)

    return asyncio.run(opened())
