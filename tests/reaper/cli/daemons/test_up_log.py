"""The log of `decnet-reaper up`: each line is in it, and in nothing else."""

import os
from pathlib import Path

import pytest

from reaper.cli.daemons.up_log import UpLog
from reaper.settings import ReaperSettings

pytestmark = pytest.mark.anyio


async def write(log: UpLog, *lines: str) -> None:
    """Be a daemon that logs these lines and ends."""
    writing = log.pipe()
    os.write(writing, "".join(lines).encode())
    os.close(writing)
    await log.drain()


async def test_a_full_file_that_can_not_be_put_aside_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reaper.cli.daemons.up_log._LIMIT", 5)
    current, older = tmp_path / "up.log", tmp_path / "up.log.1"
    older.mkdir()
    log = UpLog(ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path))
    await write(log, "first\n", "second\n")
    with (tmp_path / "store").open("w"):  # as whatever is opened next
        await write(log, "third\n")
    assert (tmp_path / "store").read_text() == ""
    assert current.read_text() == "first\nsecond\nthird\n"
    older.rmdir()
    await write(log, "fourth\n")
    assert (older.read_text(), current.read_text()) == ("first\nsecond\nthird\n", "fourth\n")
