"""What every call needs: an engine that is open, in this process and this event loop."""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator
from typing import TypeVar, cast

from repo.base import (
    BaseRepository,
    Lifecycle,
)
from repo.engine import Engine
from repo.errors import (
    StoreUnusable,
)
from repo.models.statement import Statement, Values
from repo.repository.commit.group_commit import GroupCommit, Write

T = TypeVar("T")


class OpenedRepository(BaseRepository):
    """Opens and closes the engine, and hands it what is to be written or read.

    Args:
        engine: the database, not yet open.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writes: GroupCommit | None = None
        self._opened_in: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._session: AsyncGenerator[None] | None = None

    async def initialize(self) -> None:
        if self._session is None:
            session = _session(self._engine)
            await anext(session)
            self._session = session
            self._opened_in = os.getpid(), asyncio.get_running_loop()
            self._writes = GroupCommit(self._engine)
            # for a loop that ends without asyncgens having been shut down, at the latest at exit
            weakref.finalize(self, self._engine.abandon)

    async def close(self) -> None:
        session, self._session = self._session, None
        writes, self._writes = self._writes, None
        if session is None or writes is None or self._opened_in is None:
            return
        if self._opened_in == (os.getpid(), asyncio.get_running_loop()):
            await writes.finish()
            await session.aclose()
        else:
            self._engine.abandon()

    async def sync(self) -> None:
        await self._opened().sync()

    async def _write(self, write: Write[T]) -> T:
        return await self._opened().write(write)

    async def _rows(self, query: Statement, values: Values) -> list[Lifecycle]:
        self._opened()
        return cast("list[Lifecycle]", await self._engine.rows(query, values))

    async def _first(self, query: Statement, values: Values) -> Lifecycle | None:
        return next(iter(await self._rows(query, values)), None)

    def _opened(self) -> GroupCommit:
        if self._writes is None or self._opened_in is None:
            raise StoreUnusable(f"{self._engine.name}: this repository is not open, call initialize() first")
        pid, loop = self._opened_in
        if pid != os.getpid():
            raise StoreUnusable("this repository was opened before a fork: open one in each process")
        if loop is not asyncio.get_running_loop():
            raise StoreUnusable("this repository was opened in another event loop: open one in each")
        return self._writes


async def _session(engine: Engine) -> AsyncGenerator[None]:
    """Open until it is closed: by `close`, or by the event loop, when nobody holds it or the loop ends."""
    await engine.open()
    try:
        yield
    finally:
        await engine.close()
