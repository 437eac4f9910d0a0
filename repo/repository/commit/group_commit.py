"""Group commit: many callers, one writer, one transaction for all that wait.

A durable commit costs one fsync, whether it holds one write or fifty. So callers put down what they want
written and wait; a task takes all that is there, runs it in one transaction, each statement once for all its
rows, commits, and wakes everybody at once. While it commits, the next group gathers.

A group is written in the hope that all is well, which is known from the number of rows that changed. If
something is not, all of it is rolled back and each write gets a savepoint of its own, so that an illegal
one fails alone. What a lost connection took back is written again; where the answer to a commit was lost,
each write first looks whether it is there. Calls that wait at the same time have no order among them, except
that writes of one row keep theirs.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from repo.engine import Engine, Step, Transaction, TransactionLost
from repo.errors import StoreBusy, StoreError, StoreUnavailable
from repo.models.statement import Statement
from repo.repository.commit.durability import Durability

T = TypeVar("T")
Found = dict[str, Any]

_LARGEST_GROUP = 500
_TRIES = 5
_LATER = 0.5


@dataclass(slots=True)
class Write(Generic[T]):
    """One caller's change.

    Attributes:
        row: id of the row that it changes, "" where none has it yet; writes of one row happen in the order
            they were asked for.
        steps: makes the statements, as late as can be.
        result: what the caller gets when all of them did what they should; it is given what `ask` found.
        otherwise: called where there are none, or one didn't and everything is as before: does the writing,
            says what the caller gets instead, or raises it.
        ask: a query that takes `ids`, asked about the row in the same transaction.
        durable: whether it is seen, and answered, when it would survive a power cut, or before.
    """

    row: str
    steps: Callable[[], Sequence[Step]]
    result: Callable[[Found], T]
    otherwise: Callable[[Transaction], Awaitable[T]]
    ask: Statement | None = None
    durable: bool = True


@dataclass(slots=True)
class _Call:
    """A write, and who waits for it."""

    write: Write[Any]
    future: asyncio.Future[Any]
    since: float
    value: Any = None
    error: Exception | None = None
    repeats: bool = False
    """An earlier try may have been committed, its answer lost."""

    def answer(self) -> None:
        if self.future.cancelled():
            return
        if self.error is None:
            self.future.set_result(self.value)
        elif isinstance(self.error, StoreError):  # one for each, since each grows its own traceback
            self.future.set_exception(type(self.error)(*self.error.args))
        else:
            self.future.set_exception(self.error)


class Refused(Exception):
    """A step did not change the row that it should."""


class GroupCommit:
    """The only writer of this process.

    Args:
        engine: an open one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[_Call] = []
        self._writer: asyncio.Task[None] | None = None
        self._held = 0
        self._durability = Durability(engine)

    async def write(self, write: Write[T]) -> T:
        """Write it, even if the caller is cancelled meanwhile; then return its result.

        Raises:
            StoreError: what `otherwise` raised, or what is wrong with the store.
        """
        loop = asyncio.get_running_loop()
        call = _Call(write, loop.create_future(), loop.time())
        self._add(call)
        result: T = await call.future
        return result

    async def sync(self) -> None:
        """As `BaseRepository.sync`."""
        await self._durability.wait()

    def _add(self, call: _Call) -> None:
        self._waiting.append(call)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="group commit")

    def _add_later(self, call: _Call) -> bool:
        """Try a write again that found its row held, unless it has waited for long enough."""
        loop = asyncio.get_running_loop()
        if not isinstance(call.error, StoreBusy) or loop.time() > call.since + self._engine.patience:
            return False
        self._held += 1
        loop.call_later(_LATER, self._add_again, call)
        return True

    def _add_again(self, call: _Call) -> None:
        self._held -= 1
        call.error = None
        self._add(call)

    async def finish(self) -> None:
        """Wait until all that was asked has been answered, and is durable."""
        while self._writer is not None or self._held:
            await (asyncio.wait({self._writer}) if self._writer is not None else asyncio.sleep(_LATER))
        await self._durability.finish()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                calls, self._waiting = self._waiting, []
                for group in _groups(calls):
                    await self._write_group(group)
                    for call in group:
                        if not self._add_later(call):
                            call.answer()
                    await self._engine.tidy_up()
        finally:
            self._writer = None

    async def _write_group(self, group: Sequence[_Call]) -> None:
        # Nobody is to see a row's end that a power cut may still take, so one of them decides for its group.
        durable = not self._engine.commits_early or any(call.write.durable for call in group)
        try:
            for left in reversed(range(_TRIES)):
                try:
                    await self._try(group, durable)
                    self._durability.note(durable)
                    break
                except TransactionLost as lost:
                    for call in group:
                        call.repeats |= lost.maybe_committed
                    if not left:
                        raise
        except Exception as error:  # of the store, or a mistake of ours: whoever waits must hear of it
            explained = self._engine.explained(error) or error
            for call in group:
                call.error = explained
                if call.repeats and isinstance(explained, StoreUnavailable):
                    unknown = f"{explained}; whether this write was committed is not known"
                    call.error = type(explained)(unknown)

    async def _try(self, group: Sequence[_Call], durable: bool) -> None:
        repeats = any(call.repeats for call in group)
        if len(group) == 1 and not repeats and await self._alone(group[0], durable):
            return
        if not repeats:
            try:
                await self._engine.transact(
                    lambda transaction: self._together(transaction, group), durable=durable
                )
            except Exception as error:
                if self._fails_all(error):
                    raise
            else:
                return
        await self._engine.transact(lambda transaction: self._one_by_one(transaction, group), durable=durable)

    async def _alone(self, call: _Call, durable: bool) -> bool:
        """Try a lone write of one step as one statement; whether it is done."""
        write = call.write
        if write.ask is not None or len(steps := write.steps()) != 1:
            return False
        try:
            done = await self._engine.run_alone(steps[0], durable=durable)
        except Exception as error:
            if not self._engine.is_refusal(error):
                raise
            return False
        if done:
            call.value = write.result({})
        return done

    async def _together(self, transaction: Transaction, group: Sequence[_Call]) -> None:
        """All of them, in the hope that none is refused."""
        planned = [(call, call.write.steps()) for call in group]
        await self._run(transaction, [(call, steps) for call, steps in planned if steps])
        for call, steps in planned:
            if not steps:
                await self._one(transaction, call)

    async def _run(self, transaction: Transaction, planned: Sequence[tuple[_Call, Sequence[Step]]]) -> None:
        if not await transaction.run([step for _, steps in planned for step in steps]):
            raise Refused
        found = await _ask(transaction, [call.write for call, _ in planned])
        for call, _ in planned:
            call.value = call.write.result(found.get(call.write.row, {}))

    async def _one_by_one(self, transaction: Transaction, group: Sequence[_Call]) -> None:
        for call in group:
            transaction.repeats = call.repeats
            await self._one(transaction, call)

    async def _one(self, transaction: Transaction, call: _Call) -> None:
        """One write in savepoints, so that only it can fail."""
        call.error = None
        for _ in range(_TRIES):  # beside other writers, what refused it may be gone when it is looked at
            try:
                if steps := call.write.steps():
                    with self._refusals():
                        async with transaction.savepoint():
                            await self._run(transaction, [(call, steps)])
                        return
                with self._refusals():
                    async with transaction.savepoint():
                        call.value = await call.write.otherwise(transaction)
                    return
            except StoreBusy as error:  # somebody holds its row
                call.error = error
                return
            except Exception as error:
                if self._fails_all(error):
                    raise
                call.error = self._engine.explained(error) or error
                return
        call.error = StoreBusy(f"{self._engine.name}: other sessions wrote the same rows again and again")

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What follows goes on where a write was refused.

        Raises:
            StoreBusy: for no reason but that its row is held.
        """
        try:
            yield
        except Exception as error:
            if not self._is_refusal(error):
                raise
            if isinstance(explained := self._engine.explained(error), StoreBusy):
                raise explained from None

    def _fails_all(self, error: Exception) -> bool:
        """Whether the store can't be used, and not this write."""
        if self._is_refusal(error):
            return False
        return isinstance(self._engine.explained(error) or error, StoreUnavailable | TransactionLost)

    def _is_refusal(self, error: Exception) -> bool:
        return isinstance(error, Refused) or self._engine.is_refusal(error)


def _groups(calls: Sequence[_Call]) -> Iterator[list[_Call]]:
    group: list[_Call] = []
    rows: set[str] = set()
    for call in calls:
        if call.write.row in rows or len(group) == _LARGEST_GROUP:
            yield group
            group, rows = [], set()
        group.append(call)
        if call.write.row:
            rows.add(call.write.row)
    if group:
        yield group


async def _ask(transaction: Transaction, writes: Sequence[Write[Any]]) -> dict[str, Found]:
    """What each `ask` found, by row, with one query for all writes that ask the same."""
    rows: dict[Statement, list[str]] = {}
    for write in writes:
        if write.ask is not None:
            rows.setdefault(write.ask, []).append(write.row)
    found: dict[str, Found] = {}
    for query, ids in rows.items():
        for row in await transaction.rows(query, {"ids": json.dumps(ids)}):
            found[row["id"]] = row
    return found
