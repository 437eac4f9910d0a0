"""The command `copy` beside what still writes to the store."""

import pytest

from tests.support.fleet import Fleet

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("daemon", ["worker", "reaper"])
async def test_a_store_is_copied_only_when_its_daemons_are_down(fleet: Fleet, daemon: str) -> None:
    fleet.set(database=str(fleet.root / "state" / "decnet-reaper.db"))  # a file, whatever the tests run on
    running = await (fleet.worker() if daemon == "worker" else fleet.reaper())
    target = fleet.root / "copy.db"
    status, out, err = await fleet.run("copy", "--to", str(target))
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert f"`decnet-reaper {daemon}` runs on it" in err
    assert not target.exists()
    assert await running.stop() == 0
    status, out, err = await fleet.run("copy", "--to", str(target))
    assert (status, err) == (0, "")
    assert "copied 0 rows" in out
