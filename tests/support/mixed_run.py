"""A run with a bit of everything: deploys, mutates, failures, kills, cancels, an outage of Redis, retries."""

import asyncio
import contextlib
import random
import signal

from repo.errors import LifecycleClosed
from tests.support.audit import ENDS
from tests.support.fleet import HANG_GUARD_S, Daemon, Fleet, exits, wait_status
from worker.client import LifecycleClient


class MixedRun:
    """Drives a fleet with a reaper and two workers.

    Args:
        fleet: without daemons yet.
        client: the master.
        seed: of what happens.
    """

    def __init__(self, fleet: Fleet, client: LifecycleClient, seed: int) -> None:
        self._fleet = fleet
        self._client = client
        self._random = random.Random(seed)  # noqa: S311
        self._workers: list[Daemon] = []
        self._round = 0

    async def run(self, rounds: int) -> None:
        """So many rounds, then wait until every row has ended."""
        await self._fleet.reaper()
        self._workers = [await self._fleet.worker(), await self._fleet.worker()]
        for self._round in range(rounds):
            events = [self._ordinary, self._killed, self._cancelled, self._interrupted, self._outage]
            self._random.shuffle(events)
            for event in events:
                await event()
        await self._ended()

    def _name(self, kind: str) -> str:
        return f"{kind}-{self._round:02}"

    async def _gated(self, kind: str) -> tuple[str, str]:
        """A deploy that runs until the gate of its decky is made: the id and the decky's name."""
        name = self._name(kind)
        document = self._fleet.document(name, "ssh", gate=self._fleet.gate(name))
        lifecycle_id = await self._client.deploy(name, document)
        await wait_status(self._client, lifecycle_id, "running")
        return lifecycle_id, name

    async def _ordinary(self) -> None:
        name = self._name("plain")
        await self._client.deploy(name, self._fleet.document(name, "ssh", "http"), host_uuid=None)
        await self._client.mutate(name, services=["http"])
        broken = self._fleet.document(name, "ssh")
        broken["services"][f"{name}-ssh"] |= exits("sh", "-c", 'echo "no \\"port\\""; echo; exit 3')
        await self._client.mutate(name, compose=broken)
        await self._client.deploy(self._name("broken"), {"services": {self._name("broken"): {"image": "x"}}})

    async def _killed(self) -> None:
        lifecycle_id, name = await self._gated("killed")
        await self._lose(lifecycle_id, signal.SIGKILL)
        self._fleet.gate(name).touch()
        self._workers.append(await self._fleet.worker())

    async def _interrupted(self) -> None:
        lifecycle_id, name = await self._gated("interrupted")
        await self._lose(lifecycle_id, signal.SIGTERM)
        self._fleet.gate(name).touch()
        self._workers.append(await self._fleet.worker())

    async def _cancelled(self) -> None:
        running, name = await self._gated("cancelled")
        pending = await self._client.mutate(name, services=["ssh"])
        await self._client.cancel(pending)
        await self._client.cancel(running)
        with contextlib.suppress(LifecycleClosed):
            await self._client.cancel(await self._client.deploy(name, self._fleet.document(name)))

    async def _outage(self) -> None:
        running, name = await self._gated("outage")
        await self._fleet.kill_queue()
        waiting = [
            await self._client.deploy(self._name(kind), self._fleet.document(self._name(kind)))
            for kind in ("unrung-a", "unrung-b")
        ]
        self._fleet.gate(name).touch()
        await self._client.wait(running, HANG_GUARD_S)
        await self._fleet.start_queue()
        for lifecycle_id in waiting:
            await self._client.wait(lifecycle_id, HANG_GUARD_S)

    async def _lose(self, lifecycle_id: str, number: signal.Signals) -> None:
        """End the worker that runs this row, and wait for the row's end."""
        owner = (await self._client.get(lifecycle_id))["owner"] or ""
        worker = next(worker for worker in self._workers if f"/{worker.pid}/" in owner)
        self._workers.remove(worker)
        async with asyncio.timeout(HANG_GUARD_S):
            # One that ends in the very moment of the kill could not tell of it any more.
            while await self._busy_with(worker, owner) != {lifecycle_id}:
                await asyncio.sleep(0.05)
        worker.signal(number)
        await self._client.wait(lifecycle_id, HANG_GUARD_S)
        await worker.process.wait()

    async def _busy_with(self, worker: Daemon, owner: str) -> set[str]:
        """What a worker runs, by the store and by its log."""
        rows = await self._client.repository.list_lifecycles(statuses=["running"])
        busy = {row["id"] for row in rows if row["owner"] == owner}
        about = [line for line in worker.lines if "lifecycle_id" in line]
        started = {line["lifecycle_id"] for line in about if line["event"] == "lifecycle.running"}
        return busy | (started - {line["lifecycle_id"] for line in about if line["event"] in ENDS})

    async def _ended(self) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            while await self._client.repository.list_open_lifecycles():
                await asyncio.sleep(0.05)
