"""SIGHUP: what can change does, what can't is told, what is wrong changes nothing."""

import signal

import pytest

from tests.support.fleet import Fleet

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("daemon", ["worker", "reaper"])
async def test_settings_are_read_again(fleet: Fleet, daemon: str) -> None:
    config = fleet.root / "config.toml"
    running = await (fleet.worker() if daemon == "worker" else fleet.reaper())
    config.write_text('max_attempts = 5\nmax_jobs = 3\nlog_level = "debug"\n')
    running.signal(signal.SIGHUP)
    line = await running.log("daemon.reloaded")
    assert (line["changed"], line["needs_restart"]) == ("max_attempts, log_level", "max_jobs")
    config.write_text("max_attempts = 0\n")
    running.signal(signal.SIGHUP)
    line = await running.log("daemon.reload_failed")
    assert "max_attempts" in line["reason"]
    assert await running.stop() == 0
    assert running.garbage == []
