"""The loop of a worker: pick jobs, run them, finish them, and go on after every outage of Redis.

A poll is one script call, which removes the jobs that ended and picks as many as there is room for. Between
polls the loop sleeps until a job ends or, if there is room, a token arrives in the wake list. arq reads the
queue every half second, and takes four round trips to pick a job, one to read it, one to finish it.

Redis appears nowhere else: a job in flight neither knows nor cares whether it is there.
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from arq.cron import CronJob
from arq.worker import Function, Worker
from redis.exceptions import ConnectionError

from repo.base import StoreIdentity
from worker.logging.emit import emit
from worker.queue.connection import REDIS_ERRORS, connect, disconnect, explain
from worker.queue.dsn import Server
from worker.queue.jobs import Refused, decode, encode, key, read_job
from worker.queue.outage import Outage

_POLL = (Path(__file__).parent / "lua" / "poll.lua").read_text()

_IDLE = 1
"""Seconds between two looks at the queue when nothing calls for one: a lost token costs no more."""
_BACK_OFF = (0.1, 2.0)
"""Seconds between two attempts to reach Redis: at first, and at most."""
_LATEST_CRON = 62
"""Seconds: a cron that names seconds is due at least every minute."""
_STORE_KEPT_MS = 60_000
"""For how long a queue stays a store's that has no daemon there any more."""


class Loop(Worker):
    """arq's worker with a loop that survives.

    Args:
        server, queue: where the jobs are.
        host_uuid: whose keys they are.
        wake: the list where tokens arrive, or None to look for work every half second.
        functions, cron_jobs: what there is to run.
        arguments: how many each of the functions takes.
        max_jobs: how many run at a time.
        job_timeout: seconds that no job outlasts (not enforced here); 10 s later Redis frees its id.
        deferred: whether jobs have a time before which they must not run; without, no clock is looked at.
        keep: seconds for which the id of an ended job stays used up (arq keeps a cron's for a minute, so that
            it runs once however late a worker is).
        outage: where it is reported that Redis is away, and back.
        store: the store that the queue must belong to; None asks no questions.
    """

    def __init__(
        self,
        server: Server,
        queue: str,
        *,
        host_uuid: str | None,
        wake: str | None,
        functions: Sequence[Function],
        cron_jobs: Sequence[CronJob],
        arguments: int,
        max_jobs: int,
        job_timeout: float,
        deferred: bool,
        keep: float,
        outage: Outage,
        store: StoreIdentity | None,
    ) -> None:
        super().__init__(
            functions,
            queue_name=queue,
            cron_jobs=cron_jobs,
            redis_pool=connect(server, connections=4, queue=queue),
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
        self._keys = [queue, wake or f"{queue}:wake", key(host_uuid, "store")]
        self._wake = wake
        self._arity = arguments
        self._deferred = deferred
        self._keep = keep
        self._outage = outage
        self._store = store
        self._me = uuid.uuid4().hex
        self._poll_script = self.pool.register_script(_POLL)
        self._arguments: dict[str, list[str]] = {}
        self._not_queued: set[str] = set()
        self._ended: set[bytes] = set()
        self._token: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._failed = asyncio.Event()
        self._answered = time.monotonic()
        self._pause = _BACK_OFF[0]
        self._closing = False

    async def main(self) -> None:
        """Poll after poll, until `close`."""
        while not self._closing:
            try:
                await self.heart_beat()
                await self._poll()
                self._report_answer()
                await self._rest()
            except Exception as error:  # whatever it is, the loop must go on
                await self._back_off(error)
        await self._forget_token()

    @property
    def room(self) -> int:
        """How many more jobs may be started."""
        return self.max_jobs - len(self.tasks) if self.allow_pick_jobs else 0

    async def silence(self, seconds: float) -> None:
        """Return when Redis can't be used, or has not answered for so many seconds."""
        while not self._failed.is_set() and (left := self._answered + seconds - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._failed.wait()

    def start(self, function: str, arguments: Sequence[str]) -> bool:
        """Start a job that is not from the queue; False if there is no room, or one of its row runs."""
        if self.room <= 0 or any(each[:1] == [*arguments[:1]] for each in self._arguments.values()):
            return False
        job_id = f"not queued: {arguments[0]}"
        self._not_queued.add(job_id)
        self._run(job_id, function, [*arguments])
        return True

    async def _poll(self) -> None:
        ended = list(self._ended)
        due = time.time_ns() // 1_000_000 if self._deferred else "+inf"
        ttl, keep = int(self.in_progress_timeout_s * 1000), int(self._keep * 1000)
        limits = [due, ttl, keep, self._me, self.room]
        picked = await self._poll_script(
            keys=self._keys,
            args=[" ".join(self._store or ()), _STORE_KEPT_MS, *limits, len(ended), *ended, *self.tasks],
        )
        self._ended.difference_update(ended)
        for job_id, body in zip(picked[::2], picked[1::2], strict=True):
            self._start_picked(job_id, body)

    def _start_picked(self, raw_id: bytes, body: bytes) -> None:
        try:
            job_id = raw_id.decode()
            job = read_job(body, self.functions, self._arity)
        except (Refused, UnicodeError) as error:
            self._ended.add(raw_id)
            self._woken.set()
            emit("queue.job_refused", job_id=repr(raw_id[:100])[2:-1], reason=str(error))
            return
        self._run(job_id, job.f, job.a)

    def _run(self, job_id: str, function: str, arguments: list[str]) -> None:
        coroutine = self.functions[function].coroutine
        task = asyncio.create_task(coroutine({}, *arguments), name=job_id)
        self.tasks[job_id] = task
        self._arguments[job_id] = arguments
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        job_id = task.get_name()
        del self.tasks[job_id], self._arguments[job_id]
        if job_id in self._not_queued:
            self._not_queued.remove(job_id)
        else:
            self._ended.add(job_id.encode())
        self._woken.set()
        if not task.cancelled() and (error := task.exception()):
            emit("worker.job_crashed", job_id=job_id, reason=_in_short(error), exc_info=error)

    async def _rest(self) -> None:
        """Sleep until a job ends, a token arrives, or it is time to look again."""
        if self._wake and self.room > 0 and self._token is None:
            self._token = asyncio.create_task(self._next_token(self._wake))
            self._token.add_done_callback(lambda _: self._woken.set())
        await self._woken_within(None if self._token else self.poll_delay_s)
        if self._token and self._token.done():
            token, self._token = self._token, None
            token.result()

    async def _next_token(self, wake: str) -> None:
        await cast("Awaitable[object]", self.pool.blpop([wake], timeout=_IDLE))

    async def _woken_within(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    def _report_answer(self) -> None:
        self._answered = time.monotonic()
        self._pause = _BACK_OFF[0]
        self._failed.clear()
        self._outage.worked("poll")

    async def _back_off(self, error: Exception) -> None:
        if not isinstance(error, REDIS_ERRORS):
            emit("worker.loop_failed", reason=_in_short(error), exc_info=error)
        first = not self._failed.is_set()
        self._failed.set()
        await self._forget_token()
        with contextlib.suppress(*REDIS_ERRORS):
            await self.pool.connection_pool.disconnect(inuse_connections=False)
        if first and type(error) is ConnectionError:
            return  # closed, by an idle limit or a failover: no outage if the next connection holds
        self._outage.failed("poll", explain(self._server, error, self._store))
        # Jittered, so that a fleet doesn't return in step.
        pause, self._pause = self._pause, min(2 * self._pause, _BACK_OFF[1])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311  # jitter, not a secret
                while not self._closing:
                    await self._woken.wait()
                    self._woken.clear()

    async def _forget_token(self) -> None:
        token, self._token = self._token, None
        if token:
            token.cancel()
            await asyncio.wait([token])
            if not token.cancelled():
                token.exception()

    async def heart_beat(self) -> None:
        """Enqueue what the cron says is due, if there is one; arq's health key is not kept.

        What is due further off than anything can be is forgotten: after a clock was set, or a long outage,
        arq would make up for all that was missed, or wait for a time that is a day away.
        """
        if not self.cron_jobs:
            return
        now = datetime.now(tz=self.timezone)
        for job in self.cron_jobs:
            if job.next_run and abs((job.next_run - now).total_seconds()) > _LATEST_CRON:
                job.next_run = None
        await self.run_cron(now, self.poll_delay_s)

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
        self._woken.set()
        if self.main_task:
            await asyncio.wait([self.main_task])
        for task in self.tasks.values():
            task.cancel("the worker is closing")
        await self.drain(None)
        with contextlib.suppress(*REDIS_ERRORS):
            if self._ended:
                await self._poll()
        with contextlib.suppress(*REDIS_ERRORS):
            await disconnect(self.pool)


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
