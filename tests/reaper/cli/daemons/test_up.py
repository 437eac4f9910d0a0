"""`decnet-reaper up` on a terminal: its log, Ctrl-C once and twice, and a second one."""

import os
import re
import resource
import signal
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, gated
from tests.support.programs.terminal import Terminal

pytestmark = pytest.mark.anyio


async def test_ctrl_c_waits_for_what_runs_and_again_ends_it(fleet: Fleet) -> None:
    await fleet.kill_queue()
    async with Terminal(fleet, "up", DECNET_REAPER_LOG_FORMAT="auto", columns=200) as terminal:
        await terminal.shows("reaper.started")  # a death before its first sweep counts as the master's
        async with fleet.client() as client:
            for name in ("decky-02", "Decky.03"):
                up = await client.wait(await client.deploy(name, fleet.document(name)), timeout=60)
                assert up["status"] == "succeeded"
            lifecycle_id = await gated(fleet, client)
            while "running" not in (await fleet.run("logs", "decky-01"))[1]:
                pass
            terminal.process.send_signal(signal.SIGINT)
            await terminal.shows(
                "stopping when deploy of decky-01 is done, in 30 s at most; Ctrl-C again ends"
            )
            terminal.process.send_signal(signal.SIGINT)
            assert await terminal.ended() == 0
            row = await client.get(lifecycle_id)
        assert (row["status"], row["error"]) == ("failed", "worker died during operation")
        left = (
            r"these deckies still run, as local processes: Decky\.03, (decky-01, )?decky-02\. To end them: "
        )
        assert re.search(left, terminal.text)
        assert "reaper.watching" not in terminal.text, "a sign of life is for programs"
        assert "Traceback" not in terminal.text
    status, out, _ = await fleet.run("logs", "decky-01")
    assert status == 0
    # A healthcheck that was just being started when its worker was killed is a survivor.
    told = [line.split()[1] for line in out.splitlines()]
    assert [event for event in told if event != "survivors_ended"][1:3] == ["running", "swept"]


async def test_a_second_up_is_refused_while_the_first_goes_on(fleet: Fleet) -> None:
    await fleet.kill_queue()
    async with Terminal(fleet, "up") as terminal:
        await terminal.shows("end it with Ctrl-C")
        status, _, err = await fleet.run("up")
        assert status == 3
        assert "is already up" in err
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ended() == 0


async def test_what_can_not_be_started_is_said_once_and_tried_again(fleet: Fleet) -> None:
    """A machine that is out of processes, memory or descriptors for a while."""
    await fleet.kill_queue()
    async with Terminal(fleet, "up", columns=200) as terminal:
        for daemon in ("worker", "reaper"):
            await terminal.shows(f"{daemon}.started")
        pid = terminal.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        for name in ("worker", "reaper", "queue's server"):
            await terminal.shows(
                f"the {name} can't be started, is tried again: [Errno 24] Too many open files"
            )
        told, terminal.raw = terminal.text, ""
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        for daemon in ("worker", "reaper"):
            await terminal.shows(f"{daemon}.started")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ended() == 0
        told += terminal.text
    assert told.count("can't be started") == 3
    assert "Traceback" not in told
