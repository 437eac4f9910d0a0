"""The loop of a worker: pick jobs, run them, finish them, and weather every outage of Redis.

A turn is one script call, which removes the jobs that ended and picks as many as there is room for. Between
turns the loop sleeps until a job ends or, if there is room, a token arrives in the wake list. arq reads the
queue every half second, and takes four round trips to pick a job, one to read it, one to finish it.

Redis appears nowhere else: a job in flight neither knows nor cares whether it is there.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from arq.cron import CronJob
from arq.worker import Function, Worker

from worker.logging.events import emit
from worker.queue.connection import REDIS_ERRORS, Server
from worker.queue.jobs import Refused, decode, encode, read_job
from worker.queue.outage import Outage, tell

_POLL = Path(__file__).with_name("poll.lua").read_text()

_IDLE = 1
"""Seconds between two looks at the queue when nothing calls for one: a lost token costs no more."""
_FARTHEST_TICK = 62
"""Seconds: a cron that names seconds has one at least every minute."""


class Engine(Worker):
    """arq's worker with a loop that survives.

    `server`, `queue`: where the jobs are. `wake`: the list where tokens arrive, or None to look for work
    every half second. `functions`, `cron_jobs`: what there is to run. `deferred`: whether jobs have a time
    before which they must not run; without, no clock is looked at. `keep`: seconds for which the id of an
    ended job stays used up (arq keeps a cron's for a minute, so that a tick runs once however late a worker
    is).
    `job_timeout`: seconds that no job outlasts (not enforced here); 10 s later Redis frees its id.
    """

    def __init__(
        self,
        server: Server,
        queue: str,
        *,
        wake: str | None,
        functions: list[Function],
        cron_jobs: list[CronJob],
        max_jobs: int,
        job_timeout: float,
        deferred: bool,
        keep: float,
        outage: Outage,
        on_refused: Callable[[str, str], None],
    ) -> None:
        super().__init__(
            functions,
            queue_name=queue,
            cron_jobs=cron_jobs,
            redis_pool=server.connect(connections=4, queue=queue),
            handle_signals=False,
            max_jobs=max_jobs,
            job_timeout=job_timeout,
            keep_result=0,
            retry_jobs=False,
            job_serializer=encode,
            job_deserializer=decode,
            log_results=False,
        )
        self._server = server
        self._wake = wake
        self._deferred = deferred
        self._keep = keep
        self._outage = outage
        self._on_refused = on_refused
        self._me = uuid.uuid4().hex
        self._poll_script = self.pool.register_script(_POLL)
        self._arguments: dict[str, list[str]] = {}
        self._ended: set[bytes] = set()
        self._token: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._closing = False

    async def main(self) -> None:
        """Turn after turn, until `close`."""
        while not self._closing:
            try:
                await self.heart_beat()
                await self._poll()
                self._outage.over()
                await self._rest()
            except Exception as error:  # whatever it is, the loop must go on
                await self._weather(error)
        await self._forget_token()

    async def _poll(self) -> None:
        room = self.max_jobs - len(self.tasks) if self.allow_pick_jobs else 0
        ended = list(self._ended)
        due = time.time_ns() // 1_000_000 if self._deferred else "+inf"
        ttl, keep = int(self.in_progress_timeout_s * 1000), int(self._keep * 1000)
        picked = await self._poll_script(
            keys=[self.queue_name, self._wake or self.queue_name + ":wake"],
            args=[due, ttl, keep, self._me, room, len(ended), *ended, *self.tasks],
        )
        self._ended.difference_update(ended)
        for job_id, body in zip(picked[::2], picked[1::2], strict=True):
            self._start(job_id, body)

    def _start(self, raw_id: bytes, body: bytes) -> None:
        try:
            job_id = raw_id.decode()
            job = read_job(body, self.functions)
        except (Refused, UnicodeError) as error:
            self._ended.add(raw_id)
            self._stirred.set()
            tell(self._on_refused, repr(raw_id[:100])[2:-1], str(error))
            return
        coroutine = self.functions[job.f].coroutine
        task = asyncio.create_task(coroutine({}, *job.a), name=job_id)
        self.tasks[job_id] = task
        self._arguments[job_id] = job.a
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        job_id = task.get_name()
        del self.tasks[job_id], self._arguments[job_id]
        self._ended.add(job_id.encode())
        self._stirred.set()
        if not task.cancelled() and (error := task.exception()):
            emit("worker.job_crashed", job_id=job_id, reason=_in_short(error), exc_info=error)

    async def _rest(self) -> None:
        """Sleep until a job ends, a token arrives, or it is time to look again."""
        room = self.allow_pick_jobs and len(self.tasks) < self.max_jobs
        if self._wake and room and self._token is None:
            self._token = asyncio.create_task(self._next_token(self._wake))
            self._token.add_done_callback(lambda _: self._stirred.set())
        await self._stirred_within(None if self._token else self.poll_delay_s)
        if self._token and self._token.done():
            token, self._token = self._token, None
            token.result()

    async def _next_token(self, wake: str) -> None:
        await cast("Awaitable[object]", self.pool.blpop([wake], timeout=_IDLE))

    async def _stirred_within(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        self._stirred.clear()

    async def _weather(self, error: Exception) -> None:
        if not isinstance(error, REDIS_ERRORS):
            emit("worker.loop_failed", reason=_in_short(error), exc_info=error)
        delay = self._outage.met(self._server.trouble(error))
        await self._forget_token()
        with contextlib.suppress(*REDIS_ERRORS):
            await self.pool.connection_pool.disconnect(inuse_connections=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                while not self._closing:
                    await self._stirred.wait()
                    self._stirred.clear()

    async def _forget_token(self) -> None:
        token, self._token = self._token, None
        if token:
            token.cancel()
            await asyncio.wait([token])
            if not token.cancelled():
                token.exception()

    async def heart_beat(self) -> None:
        """Enqueue what the cron says is due, if there is one; arq's health key is not kept.

        A tick that lies further off than any tick can is forgotten: after a clock was set, or a long outage,
        arq would make up for every tick missed, or wait for a time that is a day away.
        """
        if not self.cron_jobs:
            return
        now = datetime.now(tz=self.timezone)
        for job in self.cron_jobs:
            if job.next_run and abs((job.next_run - now).total_seconds()) > _FARTHEST_TICK:
                job.next_run = None
        await self.run_cron(now, self.poll_delay_s)

    def cancel(self, argument: str | None, reason: str) -> bool:
        """Cancel the jobs with this argument, or all; whether there was one."""
        chosen = [
            task
            for job_id, task in self.tasks.items()
            if argument is None or argument in self._arguments[job_id]
        ]
        for task in chosen:
            task.cancel(reason)
        return bool(chosen)

    async def drain(self, seconds: float | None) -> bool:
        """Wait so many seconds for the running jobs to end; whether all did."""
        running = list(self.tasks.values())
        if running:
            await asyncio.wait(running, timeout=seconds)
        return all(task.done() for task in running)

    async def close(self) -> None:
        """End the loop and the jobs, remove from the queue those that ended, and let go of Redis."""
        self.allow_pick_jobs = False
        self._closing = True
        self._stirred.set()
        if self.main_task:
            await asyncio.wait([self.main_task])
        self.cancel(None, "the worker is closing")
        await self.drain(None)
        with contextlib.suppress(*REDIS_ERRORS):
            if self._ended:
                await self._poll()
        with contextlib.suppress(*REDIS_ERRORS):
            await self.pool.aclose(close_connection_pool=True)


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
