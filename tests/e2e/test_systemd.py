"""The daemons as an operator runs them: installed by the command, on a machine with a real systemd.

A deploy is kept running for as long as its gate is closed: its service's healthcheck waits for a file.
"""

import json
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.systemd_machine import VENV, Machine, machine, missing

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

COMMAND = str(VENV / "bin/decnet-reaper")
STATE = Path("/var/lib/decnet-reaper")
WORKER, REAPER, TARGET = "decnet-worker@1.service", "decnet-reaper.service", "decnet-reaper.target"
# Shorter than as shipped, so that a test of the watchdog and of the grace ends soon.
DROP_IN = "[Service]\nWatchdogSec=5\nTimeoutAbortSec=2\nEnvironment=DECNET_REAPER_STOP_GRACE=5s\n"

_numbers = count(1)


class Deploy:
    """A deploy of a new decky, submitted on the machine by the command."""

    def __init__(self, host: Machine, *, gated: bool) -> None:
        self.decky = f"decky-{next(_numbers):02}"
        self._host = host
        self._gate = STATE / f"gate-{self.decky}"
        service: dict[str, Any] = {"command": ["sleep", "infinity"]}
        if gated:
            test = ["CMD", "test", "-e", str(self._gate)]
            service["healthcheck"] = {"test": test, "interval": "100ms", "retries": 10_000}
        self._inside("root/decky.json").write_text(json.dumps({"services": {self.decky: service}}))
        self.id = host.run(COMMAND, "deploy", self.decky, "--compose", "/root/decky.json").stdout.strip()

    def open_gate(self) -> None:
        self._inside(str(self._gate)).touch()

    def event(self, name: str) -> dict[str, Any]:
        """Wait until the journal has this event of this row."""
        wanted = {"event": name, "lifecycle_id": self.id}
        return dict(self._host.wait_for(lambda entry: wanted.items() <= entry["EVENT"].items())["EVENT"])

    def retry_event(self, name: str) -> dict[str, Any]:
        """Wait until the journal has this event of this row's retry."""
        wanted = {"event": name, "retry_of": self.id}
        return dict(self._host.wait_for(lambda entry: wanted.items() <= entry["EVENT"].items())["EVENT"])

    def row(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = json.loads(self._host.run(COMMAND, "status", self.id, "--json").stdout)
        return rows[0]

    def _inside(self, path: str) -> Path:
        return self._host.root / path.lstrip("/")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if reason := missing():
        (pytest.fail if os.environ.get("DECNET_REQUIRE_E2E") == "1" else pytest.skip)(reason)
    with machine(tmp_path_factory.mktemp("machine")) as host:
        host.run(COMMAND, "install")
        drop_in = host.root / "etc/systemd/system/decnet-worker@.service.d/test.conf"
        drop_in.parent.mkdir()
        drop_in.write_text(DROP_IN)
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "enable", TARGET)
        yield host


@pytest.fixture
def running(host: Machine) -> Machine:
    """The machine with the target up; returns when both daemons have said that they are ready."""
    host.run("systemctl", "start", TARGET, REAPER, WORKER)
    return host


def main_pid(host: Machine, unit: str = WORKER) -> str:
    return host.show(unit, "MainPID")["MainPID"]


def test_both_daemons_say_that_they_are_ready_and_what_they_do(running: Machine) -> None:
    for unit in (WORKER, REAPER):
        state = running.show(unit, "ActiveState", "StatusText", "User", "WatchdogTimestampMonotonic")
        assert state["ActiveState"] == "active"
        assert state["StatusText"]
        assert state["User"] == "decnet-reaper"
        assert int(state["WatchdogTimestampMonotonic"]) > 0


def test_a_second_install_changes_nothing_and_disturbs_nobody(running: Machine) -> None:
    pids = main_pid(running), main_pid(running, REAPER)
    said = running.run(COMMAND, "install").stdout.splitlines()
    assert {line.split()[0] for line in said} == {"unchanged", "kept", "ran", "next:"}
    assert (main_pid(running), main_pid(running, REAPER)) == pids


def test_a_deploy_succeeds_and_the_journal_tells_of_it(running: Machine) -> None:
    deploy = Deploy(running, gated=False)
    assert deploy.event("lifecycle.succeeded")["decky_name"] == deploy.decky
    assert deploy.row()["status"] == "succeeded"


def test_a_killed_worker_comes_back_and_its_row_says_how_it_died(running: Machine) -> None:
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    killed = main_pid(running)
    running.run("systemctl", "kill", "--signal=KILL", WORKER)
    assert deploy.event("lifecycle.swept")["error"] == "worker died during operation (signal KILL)"
    assert deploy.row()["error"] == "worker died during operation (signal KILL)"
    deploy.retry_event("lifecycle.running")
    deploy.open_gate()
    deploy.retry_event("lifecycle.succeeded")
    assert main_pid(running) not in {"0", killed}


def test_a_loop_that_hangs_is_ended_by_the_watchdog(running: Machine) -> None:
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    running.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", WORKER)
    assert deploy.event("lifecycle.swept")["error"] == "worker died during operation (watchdog)"
    deploy.open_gate()
    deploy.retry_event("lifecycle.succeeded")


def test_stopping_lets_operations_finish_and_leaves_the_rest_waiting(running: Machine) -> None:
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    asked = running.cursor()
    running.run("systemctl", "stop", "--no-block", WORKER)
    running.wait_for(lambda entry: entry["EVENT"].get("event") == "worker.stopping", since=asked)
    waiting = Deploy(running, gated=False)
    deploy.open_gate()
    running.run("systemctl", "stop", WORKER)
    assert deploy.row()["status"] == "succeeded"
    assert waiting.row()["status"] == "pending"
    assert running.show(WORKER, "Result")["Result"] == "success"
    running.run("systemctl", "start", WORKER)
    waiting.event("lifecycle.succeeded")


def test_an_operation_longer_than_the_grace_fails_truthfully_and_is_retried(running: Machine) -> None:
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    running.run("systemctl", "stop", WORKER)
    assert deploy.row()["status"] == "failed"
    assert deploy.row()["error"] == "worker stopped during operation"
    deploy.open_gate()
    running.run("systemctl", "start", WORKER)
    deploy.retry_event("lifecycle.succeeded")


def test_a_restart_under_load_loses_and_repeats_nothing(running: Machine) -> None:
    begun = running.cursor()
    deploys = [Deploy(running, gated=False) for _ in range(5)]
    running.run("systemctl", "restart", "--no-block", WORKER)
    deploys += [Deploy(running, gated=False) for _ in range(5)]
    for deploy in deploys:
        deploy.event("lifecycle.succeeded")
    claims = [
        json.loads(line).get("lifecycle_id")
        for line in running.run(
            "journalctl", f"--after-cursor={begun}", "--output=cat", "--unit=decnet-worker@*"
        ).stdout.splitlines()
        if '"lifecycle.running"' in line
    ]
    assert sorted(claims) == sorted(deploy.id for deploy in deploys)


def test_locks_outlive_the_stop_of_any_service(running: Machine) -> None:
    deploy = Deploy(running, gated=False)
    deploy.event("lifecycle.succeeded")
    inode = ("stat", "--format=%i", f"/run/decnet-reaper/locks/{deploy.decky}.lock")
    before = running.run(*inode).stdout
    running.run("systemctl", "stop", WORKER, REAPER)
    assert running.run(*inode).stdout == before


def test_a_reboot_with_an_operation_running_is_told(running: Machine) -> None:
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    running.reset()
    assert deploy.event("lifecycle.swept")["error"] == "master restarted during operation"
    assert deploy.row()["status"] == "failed"
    deploy.open_gate()
    deploy.retry_event("lifecycle.succeeded")


def test_the_backstop_sweeps_while_the_reaper_is_down(running: Machine) -> None:
    running.run("systemctl", "stop", REAPER)
    running.run("systemctl", "start", "decnet-reaper-sweep.service")
    assert running.show("decnet-reaper-sweep.service", "Result")["Result"] == "success"
    assert running.show("decnet-reaper-sweep.timer", "ActiveState")["ActiveState"] == "active"


def test_a_reload_keeps_the_daemons_and_their_operations(running: Machine) -> None:
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    pids = main_pid(running), main_pid(running, REAPER)
    running.run("systemctl", "reload", WORKER, REAPER)
    deploy.open_gate()
    assert deploy.event("lifecycle.succeeded")["attempt"] == 1
    assert (main_pid(running), main_pid(running, REAPER)) == pids


def test_the_queue_password_comes_as_a_credential(running: Machine) -> None:
    secret = running.root / "etc/credstore/decnet-reaper.redis"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("redis://:not-the-password@127.0.0.1:6379/0")
    asked = running.cursor()
    running.run("systemctl", "restart", WORKER)
    running.wait_for(lambda entry: entry["EVENT"].get("event") == "queue.unreachable", since=asked)
    journal = running.run("journalctl", f"--after-cursor={asked}", "--output=cat").stdout
    secret.unlink()
    running.run("systemctl", "restart", WORKER)
    assert "not-the-password" not in journal


def test_uninstalling_keeps_the_rows(running: Machine) -> None:
    deploy = Deploy(running, gated=False)
    deploy.event("lifecycle.succeeded")
    running.run(COMMAND, "uninstall")
    assert running.run("systemctl", "list-units", "--no-legend", "--all", "decnet-*").stdout == ""
    running.run(COMMAND, "install")
    running.run("systemctl", "enable", TARGET)
    assert deploy.row()["status"] == "succeeded"
