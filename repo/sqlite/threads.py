"""A thread that serves coroutines: they ask and wait, it takes all that is asked and answers it together.

SQLite blocks, so it needs a thread. One thread that owns one connection, and one wake-up a group, cost less
than a hop per statement, and need neither greenlet nor aiosqlite.
"""

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from repo.errors import StoreError, StoreUnusable

W = TypeVar("W")


@dataclass(slots=True)
class Call(Generic[W]):
    """What one coroutine asked, and where it waits."""

    work: W
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    value: Any = None
    error: Exception | None = None


class ServingThread(ABC, Generic[W]):
    """One daemon thread; `ask` may be called from any event loop of this process."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Call[W] | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._stopped = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @abstractmethod
    def serve(self, calls: Sequence[Call[W]]) -> None:
        """Set the value or the error of each call, and `answer` them."""

    @abstractmethod
    def shut(self) -> None:
        """Let go of what the thread holds; its last act."""

    async def ask(self, work: W) -> Any:
        """Hand `work` to the thread and wait; it is done even if the caller is cancelled meanwhile.

        Raises:
            StoreUnusable: the thread was stopped, or belongs to the process that this one was forked from.
        """
        if self._pid != os.getpid():
            raise StoreUnusable("this repository was opened before a fork: open one in each process")
        loop = asyncio.get_running_loop()
        call = Call(work, loop.create_future(), loop)
        with self._gate:  # nobody gets in behind the last call
            if self._stopped:
                raise StoreUnusable("this repository is closed: call initialize() first")
            self._calls.put(call)
        return await call.future

    def stop(self, timeout: float | None = None) -> None:
        """Have what was asked answered, then end the thread; wait for that up to `timeout` seconds."""
        with self._gate:
            if not self._stopped:
                self._stopped = True
                self._calls.put(None)
        if self._thread is not threading.current_thread() and self._pid == os.getpid():
            self._thread.join(timeout)

    def _run(self) -> None:
        last = False
        while not last:
            asked = [self._calls.get(), *(self._calls.get() for _ in range(self._calls.qsize()))]
            calls = [call for call in asked if call is not None]
            last = len(calls) < len(asked)
            try:
                self.serve(calls)
            except Exception as error:  # a mistake of ours: whoever waits must hear of it
                for call in calls:
                    call.error = call.error or error
                answer(calls)
            del asked, calls  # what was answered may go while we wait
        self.shut()


def answer(calls: Sequence[Call[Any]]) -> None:
    """Wake everybody who waits for these calls, with one wake-up per event loop."""
    for loop in {call.loop for call in calls}:
        try:
            loop.call_soon_threadsafe(_deliver, [call for call in calls if call.loop is loop])
        except RuntimeError:  # that loop has ended, and its callers with it
            continue


def _deliver(calls: Sequence[Call[Any]]) -> None:
    for call in calls:
        if call.future.done():  # cancelled
            continue
        if call.error is None:
            call.future.set_result(call.value)
        elif isinstance(call.error, StoreError):  # one for each, since each grows its own traceback
            call.future.set_exception(type(call.error)(*call.error.args))
        else:
            call.future.set_exception(call.error)
