"""Each prerequisite, checked, with what to do about it."""

import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from reaper.settings import ReaperSettings
from repo.errors import StoreError
from repo.factory import get_repository
from worker.compose import ComposeRuntime
from worker.locks import DeckyLocks, LocksUnusable
from worker.queue import Queue, QueueUnavailable
from worker.runtime import RuntimeUnavailable

_LOW_SPACE = 256 * 1024 * 1024


class _Trouble(Exception):
    """A check that failed; says what to do."""


async def run_doctor(settings: ReaperSettings, *, as_json: bool) -> int:
    """Run every check and print what came out.

    Returns:
        The exit status: 0, or 3 if something that is needed is missing.
    """

    async def store() -> str:
        async with get_repository(settings.database) as repository:
            facts = await repository.check()
        if facts["integrity"] != "ok":
            raise _Trouble(f"{facts['path']} is damaged ({facts['integrity']}): restore it from a backup")
        return ", ".join(f"{name} {value}" for name, value in facts.items())

    async def queue() -> str:
        queue = Queue(settings.redis)
        try:
            await queue.ping()
            return queue.name
        finally:
            await queue.close()

    async def locks() -> str:
        return str(DeckyLocks(settings.runtime_dir).directory)

    async def runtime() -> str:
        compose = ComposeRuntime(settings.state_dir, settings.compose_command.split() or None)
        if settings.runtime == "process":
            return "process, as set: deckies are local processes, not containers"
        try:
            await compose.check()
        except RuntimeUnavailable as error:
            if settings.runtime == "compose":
                raise
            return f"process, since Compose can't be used: {error}"
        return "compose"

    async def space() -> str:
        free = shutil.disk_usage(_existing(settings.state_dir)).free
        if free < _LOW_SPACE:
            raise _Trouble(f"only {free // 2**20} MiB are free for {settings.state_dir}: free some")
        return f"{free // 2**20} MiB free"

    checks: dict[str, Callable[[], Awaitable[str]]] = {
        "store": store,
        "queue": queue,
        "locks": locks,
        "runtime": runtime,
        "space": space,
    }
    results = {name: await _try(check) for name, check in checks.items()}
    if as_json:
        click.echo(
            json.dumps({name: {"ok": ok, "detail": text} for name, (ok, text) in results.items()}, indent=2)
        )
    else:
        for name, (ok, text) in results.items():
            click.echo(f"{'ok  ' if ok else 'FAIL'} {name:8} {text}")
    return 0 if all(ok for ok, _ in results.values()) else 3


async def _try(check: Callable[[], Awaitable[str]]) -> tuple[bool, str]:
    try:
        return True, await check()
    except (_Trouble, StoreError, QueueUnavailable, LocksUnusable, RuntimeUnavailable, OSError) as error:
        return False, " ".join(str(error).split())


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
