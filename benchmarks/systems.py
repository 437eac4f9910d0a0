"""The same no-op job in each system: `python -m benchmarks.systems SYSTEM (worker | submit) DIRECTORY ...`.

The other benchmarks start these. A worker writes a line for each job when the job's own code begins: the
job's name, and the time on the monotonic clock, which all processes share. Submitting writes the same lines,
before each submit. Ours does all that it does in production, with a runtime that does nothing in the place of
Docker Compose: each row is durable, locked, claimed, ended and logged. Peers have no store, only Redis.

This file is run by the peers' own interpreters too, so it imports nothing at its top.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

Submit = Callable[[str], Awaitable[object]]

MAX_JOBS: Final = int(os.environ.get("BENCHMARK_MAX_JOBS", "10"))


def tell(name: str) -> None:
    """Write one line, at once."""
    os.write(1, f"{name} {time.monotonic_ns()}\n".encode())


class Nothing:
    """A runtime that is done at once."""

    name = "nothing"

    async def check(self) -> None:
        """It always works."""

    async def apply(self, decky_name: str, document: Any, *, lock_fd: int, **_: object) -> None:
        """Say that the operation has begun; there is nothing to do."""
        tell(decky_name)

    async def remove(self, decky_name: str) -> None:
        """Nothing is there."""


class Ours:
    """decnet-reaper."""

    def __init__(self, directory: Path) -> None:
        from worker.settings import WorkerSettings

        self.settings = WorkerSettings(
            state_dir=directory / "state", runtime_dir=directory, log_format="json", max_jobs=MAX_JOBS
        )

    async def work(self) -> None:
        from worker import daemon
        from worker.logging import setup

        async def nothing(*_: object) -> Nothing:
            return Nothing()

        setup.configure(self.settings)
        vars(daemon)["wait_for_runtime"] = nothing
        await daemon.run_worker(self.settings)

    @asynccontextmanager
    async def submitting(self) -> Any:
        from worker.client import LifecycleClient
        from worker.logging.setup import configure

        configure(self.settings)

        async with LifecycleClient(self.settings) as client:
            yield lambda name: client.deploy(name, {"services": {name: {"image": "decoy"}}})


class Arq:
    """arq as it is."""

    poll = 0.5

    def __init__(self, directory: Path) -> None:
        from arq.connections import RedisSettings

        self.redis = RedisSettings(unix_socket_path=str(directory / "queue.sock"))

    async def work(self) -> None:
        from arq.worker import Worker, func

        async def job(ctx: dict[Any, Any], name: str) -> None:
            tell(name)

        worker = Worker(
            [func(job, name="job")],
            redis_settings=self.redis,
            poll_delay=self.poll,
            max_jobs=MAX_JOBS,
            keep_result=0,
        )
        await worker.async_run()

    @asynccontextmanager
    async def submitting(self) -> Any:
        from arq import create_pool

        pool = await create_pool(self.redis)
        yield lambda name: pool.enqueue_job("job", name)
        await pool.aclose()


class ArqTight(Arq):
    """arq that asks fifty times a second."""

    poll = 0.02


class ArqSamePackages(Arq):
    """arq in a process that has imported the other packages that our worker is made of."""

    async def work(self) -> None:
        import aiosqlite  # noqa: F401
        import sqlmodel  # noqa: F401
        import structlog  # noqa: F401

        await super().work()


class Saq:
    """SAQ."""

    def __init__(self, directory: Path) -> None:
        from redis.asyncio import Redis
        from saq.queue.redis import RedisQueue  # type: ignore[import-not-found]

        self.queue = RedisQueue(Redis(unix_socket_path=str(directory / "queue.sock")))

    async def work(self) -> None:
        from saq import Worker  # type: ignore[import-not-found]

        async def job(ctx: dict[str, Any], *, name: str) -> None:
            tell(name)

        await Worker(self.queue, functions=[("job", job)], concurrency=MAX_JOBS).start()

    @asynccontextmanager
    async def submitting(self) -> Any:
        await self.queue.connect()
        yield lambda name: self.queue.enqueue("job", name=name)
        await self.queue.disconnect()


class Taskiq:
    """taskiq with its list broker."""

    def __init__(self, directory: Path) -> None:
        from taskiq_redis import ListQueueBroker  # type: ignore[import-not-found]

        async def job(name: str) -> None:
            tell(name)

        self.broker = ListQueueBroker(f"unix://{directory}/queue.sock")
        self.job = self.broker.task("job")(job)

    async def work(self) -> None:
        from taskiq.api import run_receiver_task  # type: ignore[import-not-found]

        await run_receiver_task(self.broker, max_async_tasks=MAX_JOBS, run_startup=True)

    @asynccontextmanager
    async def submitting(self) -> Any:
        await self.broker.startup()
        yield lambda name: self.job.kiq(name)
        await self.broker.shutdown()


SYSTEMS: Final[dict[str, Any]] = {
    "decnet-reaper": Ours,
    "arq": Arq,
    "arq, poll 0.02": ArqTight,
    "arq, same packages": ArqSamePackages,
    "SAQ": Saq,
    "taskiq": Taskiq,
}


async def submit(system: Any, count: int, callers: int, pause: float, name: str) -> None:
    """Submit `NAME-0` ... with so many callers at once, each resting `pause` seconds after each submit."""
    async with AsyncExitStack() as stack:
        call: Submit = await stack.enter_async_context(system.submitting())
        await call("warm")
        await asyncio.sleep(0.3)

        async def caller(first: int) -> None:
            for number in range(first, count, callers):
                if pause:
                    tell(f"{name}-{number}")
                await call(f"{name}-{number}")
                await asyncio.sleep(pause)

        tell("begun")
        await asyncio.gather(*map(caller, range(callers)))
    tell("done")


async def main(name: str, role: str, directory: str, *numbers: str) -> None:
    """Be one worker, or submit COUNT jobs called NAME with CALLERS callers and PAUSE seconds between."""
    system = SYSTEMS[name](Path(directory))
    if role == "worker":
        await system.work()
    else:
        await submit(system, int(numbers[0]), int(numbers[1]), float(numbers[2]), numbers[3])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
