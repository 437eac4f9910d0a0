"""Random mixes of submits, completions, kills, cancels, flushes and sweeps, against a model of the rows.

The store, the queue, the locks and the sweep are the real ones. A worker is a process that only lives and is
killed: this one takes the decky's lock for it and claims, and at its kill gives the lock up without a word to
the store, which is all that the kernel does.
"""

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reaper.settings import ReaperSettings, Seconds
from reaper.sweep.report import Scope
from reaper.sweep.sweeper import Sweeper
from repo.base import OPEN, TERMINAL, Lifecycle
from repo.errors import LifecycleClosed
from repo.factory import get_repository
from worker.liveness.lock_directory import LockDirectory
from worker.liveness.locks import DeckyLock, DeckyLocks, Holder
from worker.liveness.owner import Owner, start_ticks
from worker.queue import Delivery, Queue
from worker.queue.server import find_server, server_command, wait_ready

T = TypeVar("T")
DECKIES = ("decky-a", "decky-b")
MAX_ATTEMPTS = 2


class Rows(RuleBasedStateMachine):
    """What may happen to rows, in any order; the model is what each call said."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="random-"))
        binary = find_server()
        assert binary is not None
        (self.root / "run").mkdir(mode=0o700)
        socket = self.root / "run" / "queue.sock"
        self.server = subprocess.Popen(server_command(binary, socket, self.root), stdout=subprocess.DEVNULL)
        self.runner = asyncio.Runner()
        self.settings = ReaperSettings(
            state_dir=self.root,
            runtime_dir=self.root / "run",
            max_attempts=MAX_ATTEMPTS,
            retention=Seconds(86400),
        )
        self.repository = get_repository(self.root / "store.db")
        self.locks = DeckyLocks(LockDirectory(self.root / "locks"))
        self.do(wait_ready(socket, 30))
        self.do(self.repository.initialize())
        self.queue = Queue(self.settings.redis)
        self.sweeper = Sweeper(self.repository, self.queue, self.locks, self.settings)
        self.held: dict[str, tuple[DeckyLock, str, subprocess.Popen[bytes]]] = {}
        self.ended: dict[str, Lifecycle] = {}
        self.claims: list[str] = []

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def rows(self) -> list[Lifecycle]:
        """All rows, oldest first."""
        return sorted(self.do(self.repository.list_lifecycles(limit=10_000)), key=lambda row: row["id"])

    def running(self) -> list[Lifecycle]:
        return [row for row in self.rows() if row["status"] == "running"]

    def open_rows(self) -> list[Lifecycle]:
        return [row for row in self.rows() if row["status"] in OPEN]

    @initialize()
    def first_pass(self) -> None:
        self.do(self.sweeper.run("start", Scope(with_queue=False)))

    @rule(
        decky=st.sampled_from(DECKIES),
        operation=st.sampled_from(["deploy", "mutate"]),
        wish=st.integers(0, 2),
        rings=st.booleans(),
    )
    def submit(self, decky: str, operation: str, wish: int, rings: bool) -> None:
        newest = next((row for row in reversed(self.open_rows()) if row["decky_name"] == decky), None)
        data = {"decky_name": decky, "operation": operation, "payload": {"wish": wish}, "deliveries": 1}
        lifecycle_id, created = self.do(self.repository.submit_lifecycle(data))
        if not created:
            assert newest is not None
            assert (newest["id"], newest["operation"]) == (lifecycle_id, operation)
        if rings:
            self.do(self.queue.enqueue([Delivery(lifecycle_id, 1, None, operation, decky)]))

    @precondition(lambda self: self.open_rows())
    @rule(data=st.data(), oldest=st.sampled_from([True, True, False]))
    def claim(self, data: st.DataObject, oldest: bool) -> None:
        """A worker comes for a row, by its turn or by a delivery that is out of turn."""
        decky = data.draw(st.sampled_from(sorted({row["decky_name"] for row in self.open_rows()})))
        waiting = [row for row in self.open_rows() if row["decky_name"] == decky]
        row = waiting[0 if oldest else -1]
        lock = self.locks.try_lock(decky, None)
        if lock is None:
            assert decky in self.held
            return
        process = subprocess.Popen(["sleep", "3600"])
        started = start_ticks(process.pid) or 0
        mine = Owner.mine(self.locks.directory.id)
        owner = str(mine._replace(pid=process.pid, started=started, token=row["id"]))
        lock.write(Holder(row["id"], owner, time.monotonic() + 3600))
        claimed = self.do(self.repository.claim_lifecycle(row["id"], owner))
        allowed = row is waiting[0] and row["status"] == "pending"
        assert (claimed is not None) == allowed
        if claimed is None:
            end(lock, process)
        else:
            self.claims.append(row["id"])
            self.held[decky] = lock, owner, process

    @precondition(lambda self: self.held)
    @rule(data=st.data(), error=st.one_of(st.none(), st.text(max_size=20)), retry=st.booleans())
    def complete(self, data: st.DataObject, error: str | None, retry: bool) -> None:
        decky = data.draw(st.sampled_from(sorted(self.held)))
        lock, owner, process = self.held.pop(decky)
        (row,) = [row for row in self.running() if row["owner"] == owner]
        ending = self.do(
            self.repository.end_lifecycle(
                row["id"],
                outcome="succeeded" if error is None else "failed",
                owner=owner,
                error=error,
                retry=retry and error is not None,
            )
        )
        assert ending.applied
        end(lock, process)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """Without a word to the store, which is all that the kernel does."""
        lock, _, process = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        end(lock, process)

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), cancels=st.booleans())
    def touch_a_closed_row(self, data: st.DataObject, cancels: bool) -> None:
        row = self.ended[data.draw(st.sampled_from(sorted(self.ended)))]
        if cancels:
            with pytest.raises(LifecycleClosed):
                self.do(self.repository.request_cancel(row["id"]))
        late = self.repository.end_lifecycle(row["id"], outcome="succeeded", owner=row["owner"])
        assert not self.do(late).applied

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill_and_sweep(self, data: st.DataObject) -> None:
        self.kill(data)
        self.sweep()

    @precondition(lambda self: self.open_rows())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.open_rows()))
        after = self.do(self.repository.request_cancel(row["id"]))
        assert after == ("failed" if row["status"] == "pending" else "running")

    def flush(self) -> None:
        async def flushall() -> None:
            await self.queue._redis.flushall()

        self.do(flushall())

    @rule()
    def sweep(self) -> None:
        before = {row["id"]: row for row in self.running()}
        orphans = {row["id"] for row in before.values() if row["decky_name"] not in self.held}
        self.do(self.sweeper.run("cron"))
        after = {row["id"]: row for row in self.rows()}
        retries = [row["retry_of"] for row in after.values() if row["retry_of"] in orphans]
        for lifecycle_id, row in before.items():
            swept = lifecycle_id in orphans
            assert after[lifecycle_id]["status"] == ("failed" if swept else "running")
            again = swept and row["attempt"] < MAX_ATTEMPTS and row["cancel_requested_at"] is None
            assert retries.count(lifecycle_id) == again

    @rule()
    def flush_and_sweep(self) -> None:
        """After a pass that found the queue empty, whoever is first in line has a delivery."""
        self.flush()
        self.sweep()
        first: dict[str, Lifecycle] = {}
        for row in self.open_rows():
            first.setdefault(row["decky_name"], row)
        waiting = [row for row in first.values() if row["status"] == "pending"]
        deliveries = [Delivery.latest(row) for row in waiting]
        if deliveries:
            assert set(self.do(self.queue.states(deliveries))) == {"queued"}

    @invariant()
    def nothing_leaves_a_terminal_row(self) -> None:
        for row in self.rows():
            if row["status"] in TERMINAL:
                assert self.ended.setdefault(row["id"], row) == row
            else:
                assert row["id"] not in self.ended

    @invariant()
    def one_running_row_a_decky_and_each_claimed_once(self) -> None:
        running = [row["decky_name"] for row in self.running()]
        assert len(running) == len(set(running))
        assert len(self.claims) == len(set(self.claims))
        assert {*self.held} <= {*running}

    def teardown(self) -> None:
        for lock, _, process in self.held.values():
            end(lock, process)
        self.do(self.queue.close())
        self.do(self.repository.close())
        self.runner.close()
        self.server.kill()
        self.server.wait()
        shutil.rmtree(self.root)


def end(lock: DeckyLock, process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    lock.release()


def explore(examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Rows,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_few_random_mixes() -> None:
    explore(examples=25, steps=40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_mixes() -> None:
    explore(examples=100, steps=80)
