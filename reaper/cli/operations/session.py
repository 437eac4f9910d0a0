"""What a command that changes deckies works with: a client that is open while it runs."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from reaper.cli import exit_status
from reaper.cli.logging import settings_of_command
from reaper.cli.options import Wait
from reaper.cli.output.wait import follow
from worker.client import LifecycleClient


def with_client(work: Callable[[LifecycleClient], Coroutine[Any, Any, int]]) -> int:
    """Run `work` with a client; returns its exit status."""
    settings = settings_of_command()

    async def opened() -> int:
        async with LifecycleClient(settings) as client:
            return await work(client)

    return asyncio.run(opened())


async def submit(
    client: LifecycleClient,
    submissions: Iterable[Coroutine[Any, Any, str]],
    *,
    wait: Wait,
    as_json: bool,
    several: bool,
) -> int:
    """Submit, each by itself, report what was refused, and follow what was accepted.

    Args:
        client: where to submit.
        submissions: calls of the client that return an id.
        wait, as_json, several: as `follow` takes them.

    Returns:
        The exit status, the worst of all.
    """
    results = await asyncio.gather(*submissions, return_exceptions=True)
    refused = [exit_status.report_error(each) for each in results if isinstance(each, BaseException)]
    ids = [result for result in results if isinstance(result, str)]
    followed = await follow(client, ids, wait=wait, as_json=as_json, several=several) if ids else 0
    return max([followed, *refused])
