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
from worker.queue.dsn import parse_dsn
from worker.queue.jobs import Refused, decode, encode, key, read_job
from worker.queue.outage import Outage

_POLL = (Path(__file__).parent / "lua" / "poll.lua").read_text()

_IDLE = 1
"""Seconds between two looks at the queue when nothing calls for one: a lost token costs no more."""
_BACK_OFF = (0.1, 2.0)
"""Seconds between two attempts to reach Redis: at first, and at most."""
_LATEST_CRON = 62
"""Seconds: a cron that names seconds is due at least every minute."""
_CRON_KEPT_MS = 60_000
"""For how long the id of a cron's job that ended stays used up, so that it runs once however late a worker is
(arq's `keep_cronjob_progress`)."""
_STORE_KEPT_MS = 60_000
"""For how long a queue stays a store's that has no daemon there any more."""


class Loop(Worker):
    """arq's worker with a loop that survives.

    With crons it runs these alone, on a queue of their own where a job has a time before which it must not
    run. Without, its jobs are rows: no clock is looked at, and a token in the wake list tells of each.

    Args:
        functions, cron_jobs: what there is to run; one of the two.
        dsn, host_uuid, max_jobs, job_timeout, outage, store: as `QueueWorker` takes them.

    Raises:
        InvalidDSN: what is wrong with the DSN.
    """

    def __init__(
        self,
        dsn: str,
        *,
        host_uuid: str | None,
        functions: Sequence[Function] = (),
        cron_jobs: Sequence[CronJob] = (),
        max_jobs: int = 10,
        job_timeout: float,
        outage: Outage,
        store: StoreIdentity | None,
    ) -> None:
        server = parse_dsn(dsn)
        queue = key(host_uuid, "sweep" if cron_jobs else "jobs")
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
        # A poll empties the wake list: that of the crons is another one than the rows', and nobody uses it.
        self._wake = f"{queue}:wake" if cron_jobs else key(host_uuid, "wake")
        self._keys = [queue, self._wake, key(host_uuid, "store")]
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

    async def run(self) -> None:  # type: ignore[override]  # arq's is for where no event loop runs
        """Work until `close`. Waits for Redis at the start too."""
        # In a task of its own, which `close` can wait for whoever cancels us.
        self.main_task = asyncio.create_task(self.main())
        try:
            await asyncio.shield(self.main_task)
        except asyncio.CancelledError:
            # In a task of its own: on Debian 12's Python 3.11.2 a timeout (redis-py's too) doesn't end as a
            # TimeoutError in one that is being cancelled (python/cpython issue 102780).
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.create_task(self.close())
            raise

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
    def running(self) -> int:
        """How many jobs are running."""
        return len(self.tasks)

    @property
    def room(self) -> int:
        """How many more may run; none when stopping."""
        return self.max_jobs - len(self.tasks) if self.allow_pick_jobs else 0

    async def silence(self, seconds: float) -> None:
        """Return at once when Redis can't be used, else when it has not answered for so many seconds."""
        while not self._failed.is_set() and (left := self._answered + seconds - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._failed.wait()

    def start(self, operation: str, lifecycle_id: str, decky_name: str) -> bool:
        """Run a row that was not picked; False if there is no room, or it runs already."""
        if self.room <= 0 or any(each[0] == lifecycle_id for each in self._arguments.values()):
            return False
        job_id = f"not queued: {lifecycle_id}"
        self._not_queued.add(job_id)
        self._run(job_id, operation, [lifecycle_id, decky_name])
        return True

    def stop_picking(self) -> None:
        """Take no more jobs. One that is being taken at this moment still runs."""
        self.allow_pick_jobs = False

    async def _poll(self) -> None:
        ended = list(self._ended)
        due, keep = (time.time_ns() // 1_000_000, _CRON_KEPT_MS) if self.cron_jobs else ("+inf", 0)
        limits = [due, int(self.in_progress_timeout_s * 1000), keep, self._me, self.room]
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
            job = read_job(body, self.functions, arguments=0 if self.cron_jobs else 2)
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
        if not self.cron_jobs and self.room > 0 and self._token is None:
            self._token = asyncio.create_task(self._next_token())
            self._token.add_done_callback(lambda _: self._woken.set())
        await self._woken_within(None if self._token else self.poll_delay_s)
        if self._token and self._token.done():
            token, self._token = self._token, None
            token.result()

    async def _next_token(self) -> None:
        await cast("Awaitable[object]", self.pool.blpop([self._wake], timeout=_IDLE))

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
        """Wait at most so many seconds for the running jobs, or for ever; whether all ended."""
        running = list(self.tasks.values())
        if running:
            await asyncio.wait(running, timeout=seconds)
        return all(task.done() for task in running)

    async def close(self) -> None:
        """End `run`, cancel what still runs and wait for it, clear the queue of what ended, disconnect."""
        self.stop_picking()
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
