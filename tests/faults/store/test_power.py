"""Power that goes away while four processes write: every acknowledged row is there, and the file is sound."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from repo.errors import StoreUnavailable
from repo.factory import get_repository
from tests.support.machine.small_disk import RealDisk

pytestmark = pytest.mark.anyio

# Says what was acknowledged the moment it was, with one write(2) a line.
WRITER = """
import asyncio, os, sys
from repo.factory import get_repository

async def life(repository, name):
    while True:
        data = {"decky_name": name, "operation": "deploy", "payload": {"compose": {"x": "y" * 3_000}}}
        row, _ = await repository.submit_lifecycle(data, durable=False)
        await repository.sync()
        os.write(1, f"{row} pending\\n".encode())
        assert await repository.claim_lifecycle(row, name)  # nobody waits for the disk here
        assert (await repository.end_lifecycle(row, outcome="succeeded", owner=name)).applied
        os.write(1, f"{row} succeeded\\n".encode())

async def main():
    async with get_repository(db_path=sys.argv[1]) as repository:
        await asyncio.gather(*(life(repository, f"p{os.getpid()}-{n}") for n in range(10)))

asyncio.run(main())
"""
ORDER = ("pending", "succeeded")


class Writers:
    """Four processes that write to one store, and what they say was acknowledged."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self.acknowledged: dict[str, str] = {}

    async def hear(self, lines: int) -> None:
        """Read so many acknowledgements of each."""
        for process in self._processes:
            assert process.stdout is not None
            for _ in range(lines):
                line = await process.stdout.readline()
                assert line, f"a writer ended: {process.returncode}"
                self._take(line)

    async def kill(self) -> None:
        """End all of them, and hear their last words."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        for process in self._processes:
            assert process.stdout is not None
            for line in (await process.stdout.read()).splitlines(keepends=True):
                self._take(line)
            await process.wait()

    def stop(self) -> None:
        """Stop all of them, in mid-commit as may be, and return when every thread has stopped."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)
        for process in self._processes:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT)

    def _take(self, line: bytes) -> None:
        assert line.endswith(b"\n"), line
        lifecycle_id, status = line.decode().split()
        self.acknowledged[lifecycle_id] = status


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[Writers]:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, path),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # of the errors after the cut
        )
        for _ in range(4)
    ]
    writers = Writers(processes)
    try:
        yield writers
    finally:
        await writers.kill()


def holds(path: Path, acknowledged: dict[str, str]) -> None:
    """Assert that a store which lost power has all of this, in this state or a later one."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = statuses(path)
    assert len(acknowledged) > 40
    late = {row: status for row, status in acknowledged.items() if status not in ORDER[: _at(found.get(row))]}
    assert late == {}


def _at(status: str | None) -> int:
    return len(ORDER) if status == "succeeded" else int(status is not None)


async def test_copies_at_the_moment_of_acknowledgement_have_every_row(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with writing(path) as writers:
        for number in range(3):
            await writers.hear(50 + 37 * number)
            heard = dict(writers.acknowledged)
            writers.stop()  # or the two files would be of different moments
            copy = tmp_path / f"copy-{number}.db"
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            writers.go_on()
            holds(copy, heard)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RealDisk]:
    disk = RealDisk(tmp_path)
    yield disk
    disk.unmount()


async def test_a_disk_whose_power_is_cut_has_every_acknowledged_row(disk: RealDisk) -> None:
    for rounds in range(2):
        async with writing(disk.path / "store.db") as writers:
            await writers.hear(60 + 41 * rounds)
            # The ioctl is no fair power cut to a sync under way: fdatasync(2) then says 0 of data that it
            # drops (Linux 6.18; a bare file loses its last block so, every 50th time).
            writers.stop()
            disk.cut_power()
        disk.switch_on()
        holds(disk.path / "store.db", writers.acknowledged)


DEPLOY = {"decky_name": "decky-01", "operation": "deploy"}


async def test_what_a_power_cut_takes_before_the_sync_was_not_acknowledged(disk: RealDisk) -> None:
    path = disk.path / "store.db"
    repository = get_repository(db_path=path)
    await repository.initialize()
    kept = await repository.create_lifecycle(DEPLOY)
    await repository.submit_lifecycle(DEPLOY | {"operation": "teardown"}, durable=False)
    disk.cut_power()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="may have lost what was written"):
            await repository.sync()
    with pytest.raises(StoreUnavailable):
        await repository.create_lifecycle(DEPLOY)
    await repository.close()
    disk.switch_on()
    assert statuses(disk.path / "store.db") == {kept: "pending"}


async def test_an_end_that_is_written_with_a_submit_is_on_the_disk_before_anybody_sees_it(
    disk: RealDisk,
) -> None:
    async with get_repository(db_path=disk.path / "store.db") as repository:
        row = await repository.create_lifecycle(DEPLOY)
        assert await repository.claim_lifecycle(row, "owner")
        ending, (submitted, _) = await asyncio.gather(
            repository.end_lifecycle(row, outcome="succeeded", owner="owner"),
            repository.submit_lifecycle(DEPLOY | {"decky_name": "decky-02"}, durable=False),
        )
        disk.cut_power()
        assert ending.applied
    disk.switch_on()
    assert statuses(disk.path / "store.db") == {row: "succeeded", submitted: "pending"}


async def test_a_claim_that_nobody_waited_for_is_durable_once_its_store_is_closed(disk: RealDisk) -> None:
    path = disk.path / "store.db"
    async with get_repository(db_path=path):  # another process: the log is not copied back at the close
        async with get_repository(db_path=path) as repository:
            row = await repository.create_lifecycle(DEPLOY)
            assert await repository.claim_lifecycle(row, "owner")
        disk.cut_power()
    disk.switch_on()
    assert statuses(disk.path / "store.db") == {row: "running"}


def statuses(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT id, status FROM decky_lifecycle").fetchall())
