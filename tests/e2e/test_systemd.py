"""The daemons as an operator runs them: installed by the command, on a machine with a real systemd."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine.deploy import COMMAND, Deploy
from tests.support.machine.probes import MANY_OPERATIONS, OUT_OF_MEMORY, SANDBOX
from tests.support.machine.systemd_machine import VENV, Machine, machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

WORKER, REAPER, TARGET = "decnet-worker@1.service", "decnet-reaper.service", "decnet-reaper.target"
WEB, SOCKET = "decnet-reaper-web.service", Path("/run/decnet-reaper-web/web.sock")
# So strict that it drops lines of whoever has no limit of its own.
JOURNALD = "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=50\n"

LOOK = """
import sys, urllib.request
page = urllib.request.urlopen("http://127.0.0.1:8090" + sys.argv[1])
print(next(line for line in page if sys.argv[2] in line.decode()))
"""

COUNT = """
echo 0
read -r _ <"/run/$1.go"
seq 20000
echo >"/run/$1.done"
"""


@pytest.fixture(scope="module")
def host(machines: Path) -> Iterator[Machine]:
    with machine(machines) as host:
        host.run(COMMAND, "install")
        journald = host.root / "etc/systemd/journald.conf.d/test.conf"
        journald.parent.mkdir()
        journald.write_text(JOURNALD)
        host.run("systemctl", "restart", "systemd-journald")
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "enable", TARGET)
        yield host


@pytest.fixture
def running(host: Machine) -> Machine:
    """The machine with the target up; returns when both daemons have said that they are ready."""
    host.run("systemctl", "start", TARGET, REAPER, WORKER)
    return host


def journal(host: Machine, *arguments: str, since: str = "-1d") -> list[str]:
    """Messages of the journal, a text a line."""
    host.run("journalctl", "--sync")
    return host.run("journalctl", "-o", "cat", f"--since={since}", *arguments).stdout.splitlines()


@contextmanager
def drop_in(host: Machine, unit: str, lines: str) -> Iterator[None]:
    """A unit that has these lines in its section Service."""
    file = host.root / f"etc/systemd/system/{unit}.d/of-a-test.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"[Service]\n{lines}\n")
    host.run("systemctl", "daemon-reload")
    yield
    file.unlink()
    host.run("systemctl", "daemon-reload")


def sandboxed(host: Machine, unit: str) -> dict[str, str]:
    """What happens to one who tries things in the sandbox of this unit."""
    (host.root / "opt/decnet-reaper/probe.py").write_text(SANDBOX)
    command = f"{VENV}/bin/python {VENV}/probe.py"
    text = f"[Service]\nType=oneshot\nRestart=no\nExecStopPost=\nExecStart=\nExecStart={command}\n"
    host.run("mkdir", "--parents", f"/run/systemd/system/{unit}.d")
    host.run("sh", "-c", f"printf '%s' '{text}' >/run/systemd/system/{unit}.d/probe.conf")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", unit)
    host.run("rm", "--recursive", f"/run/systemd/system/{unit}.d")
    host.run("systemctl", "daemon-reload")
    said: dict[str, str] = json.loads((host.root / "var/lib/decnet-reaper/probe.json").read_text())
    return said


def main_pid(host: Machine, unit: str = WORKER) -> str:
    return host.show(unit, "MainPID")["MainPID"]


def test_both_daemons_say_that_they_are_ready_and_what_they_do(running: Machine) -> None:
    for unit in (WORKER, REAPER):
        state = running.show(unit, "ActiveState", "StatusText", "User", "WatchdogTimestampMonotonic")
        assert state["ActiveState"] == "active"
        assert state["StatusText"]
        assert state["User"] == "decnet-reaper"
        assert int(state["WatchdogTimestampMonotonic"]) > 0


def test_neither_daemon_may_do_anything_that_it_need_not(running: Machine) -> None:
    for unit in (WORKER, REAPER):
        status = running.run("cat", f"/proc/{main_pid(running, unit)}/status").stdout
        held = dict(line.split(":\t", 1) for line in status.splitlines())
        assert {held[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (held["NoNewPrivs"], held["Seccomp"]) == ("1", "2")


def test_the_sandbox_keeps_a_service_from_what_it_tries(running: Machine) -> None:
    running.run("ip", "address", "replace", "192.0.2.1/32", "dev", "lo")
    worker = sandboxed(running, "decnet-worker@probe.service")
    sweep = sandboxed(running, "decnet-reaper-sweep.service")
    refused = {name: said for name, said in worker.items() if said != "done"}
    assert refused == {
        **dict.fromkeys(("write /etc", "write /usr", "write /var"), "Read-only file system"),
        **dict.fromkeys(("write /home", "write /root", "write /run"), "PermissionError"),
        "sniff": "Address family not supported by protocol",
        **dict.fromkeys(("become root", "change root"), "PermissionError"),
        "leave for a namespace": "FileNotFoundError",
    }
    # Compose may fetch from anywhere; who only looks after rows talks to the queue on this machine.
    assert sweep == worker | {"send elsewhere": "PermissionError"}
    assert sandboxed(running, WEB) == sweep


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
    running.kill(WORKER)
    assert deploy.event("lifecycle.swept")["error"] == "worker died during operation (signal KILL)"
    assert deploy.row()["error"] == "worker died during operation (signal KILL)"
    deploy.retry_event("lifecycle.running")
    deploy.open_gate()
    deploy.retry_event("lifecycle.succeeded")
    assert main_pid(running) not in {"0", killed}


def test_a_worker_that_is_out_of_memory_has_its_row_say_so(running: Machine) -> None:
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    group = running.show(WORKER, "ControlGroup")["ControlGroup"]
    running.run("python3", "-c", OUT_OF_MEMORY, group)
    assert deploy.event("lifecycle.swept")["error"] == "worker died during operation (oom-kill)"
    deploy.open_gate()
    deploy.retry_event("lifecycle.succeeded")


def test_a_loop_that_hangs_is_ended_by_the_watchdog(running: Machine) -> None:
    with drop_in(running, WORKER, "WatchdogSec=5\nTimeoutAbortSec=2"):
        running.run("systemctl", "restart", WORKER)
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
    with drop_in(running, WORKER, "Environment=DECNET_REAPER_STOP_GRACE=2s"):
        running.run("systemctl", "restart", WORKER)
    since = running.now()
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    running.run("systemctl", "stop", WORKER)
    assert deploy.row()["status"] == "failed"
    assert deploy.row()["error"] == "worker stopped during operation"
    (warning,) = map(json.loads, journal(running, "-tdecnet-worker", "-pwarning", since=since))
    assert (warning["event"], warning["lifecycle_id"]) == ("lifecycle.interrupted", deploy.id)
    assert journal(running, "-tdecnet-worker", "-perr", since=since) == []
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


def counted(running: Machine, unit: str, *limits: str) -> list[str]:
    """What the journal keeps of a unit that counts to 20,000 at once; with limits, all of it."""
    (running.root / "opt/decnet-reaper/count.sh").write_text(COUNT)
    running.run("mkfifo", f"/run/{unit}.go", f"/run/{unit}.done")
    begun = running.cursor()
    running.run("systemd-run", "--quiet", f"--unit={unit}", *limits, "sh", f"{VENV}/count.sh", unit)
    # journald reads a unit's limits as it reads its first line, if the unit is still there then.
    running.wait_for(lambda entry: entry.get("_SYSTEMD_UNIT") == f"{unit}.service", since=begun)
    running.run("sh", "-c", f"echo >/run/{unit}.go; read -r _ </run/{unit}.done")
    if limits:  # `journalctl --sync` doesn't wait for what is still in a service's socket
        running.wait_for(lambda entry: entry.get("MESSAGE") == "20000", since=begun)
    return journal(running, f"-u{unit}", "-tsh")


def test_a_service_without_our_setting_loses_lines(running: Machine) -> None:
    ours = running.show(WORKER, "LogRateLimitIntervalUSec", "LogRateLimitBurst")
    kept = counted(
        running,
        "as-ours",
        f"-pLogRateLimitIntervalSec={ours['LogRateLimitIntervalUSec']}",
        f"-pLogRateLimitBurst={ours['LogRateLimitBurst']}",
    )
    assert kept == [str(number) for number in range(20_001)]
    assert len(counted(running, "without")) < 20_001


def test_no_line_is_dropped_and_each_has_its_priority_when_thousands_end_at_once(running: Machine) -> None:
    running.run("systemctl", "stop", WORKER)
    since, begun = running.now(), running.cursor()
    rows = json.loads(running.run(str(VENV / "bin/python"), "-c", MANY_OPERATIONS).stdout)
    assert list(rows.values()) == ["failed"] * 2_000
    left = set(rows)  # `journalctl --sync` doesn't wait for what is still in a service's socket

    def all_are_told(entry: dict[str, Any]) -> bool:
        if entry["EVENT"].get("event") == "lifecycle.failed":
            left.discard(entry["EVENT"].get("lifecycle_id"))
        return not left

    running.wait_for(all_are_told, since=begun)
    said = journal(running, "-tdecnet-worker", since=since)
    told = Counter((line["event"], line.get("lifecycle_id")) for line in map(json.loads, said))
    for event in ("lifecycle.running", "lifecycle.failed"):
        assert {key: n for key, n in told.items() if key[0] == event} == dict.fromkeys(
            ((event, id_) for id_ in rows), 1
        )
    errors = [line for line in said if '"level": "error"' in line]
    assert journal(running, "-tdecnet-worker", "-perr", since=since) == errors
    select = "jq -r 'select(.event == \"lifecycle.failed\").lifecycle_id'"
    piped = running.run("sh", "-c", f"journalctl --since={since} -o cat -t decnet-worker | {select}").stdout
    assert sorted(piped.split()) == sorted(rows)


def test_locks_outlive_the_stop_of_any_service(running: Machine) -> None:
    deploy = Deploy(running, gated=False)
    deploy.event("lifecycle.succeeded")
    inode = ("stat", "--format=%i", f"/var/lib/decnet-reaper/decnet-reaper.db-locks/{deploy.decky}.lock")
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


def test_a_store_on_postgresql_serves_the_same(running: Machine) -> None:
    setup = "CREATE ROLE decnet LOGIN PASSWORD 'of-a-test'; CREATE DATABASE decnet OWNER decnet"
    for statement in setup.split("; "):
        running.run("runuser", "-u", "postgres", "--", "psql", "--command", statement)
    config = running.root / "etc/decnet-reaper/config.toml"
    in_a_file = config.read_text()
    store = 'database = "postgresql://decnet@127.0.0.1/decnet"\ndatabase_password = "of-a-test"\n'
    another_queue = re.sub("(?m)^redis = .*$", 'redis = "redis://127.0.0.1:6379/1"', in_a_file)
    config.write_text(f"{another_queue}\n{store}")
    running.run(COMMAND, "doctor", "--create", check=False)
    running.run("systemctl", "restart", REAPER, WORKER)
    deploy = Deploy(running, gated=True)
    deploy.event("lifecycle.running")
    running.run("systemctl", "restart", "postgresql@*")
    running.kill(WORKER)
    assert deploy.event("lifecycle.swept")["error"] == "worker died during operation (signal KILL)"
    deploy.open_gate()
    deploy.retry_event("lifecycle.succeeded")
    assert deploy.row()["outcome"] == "swept"
    config.write_text(in_a_file)
    running.run("systemctl", "restart", REAPER, WORKER)


def test_the_live_page_is_a_service_as_the_others_are(running: Machine) -> None:
    deploy = Deploy(running, gated=False)
    deploy.event("lifecycle.succeeded")
    running.run("systemctl", "start", WEB)
    assert running.show(WEB, "User", "StatusText")["StatusText"] == "listens on 127.0.0.1:8090"
    running.run("python3", "-c", LOOK, "/", "<title>Deckies</title>")
    running.run("python3", "-c", LOOK, "/events", deploy.id)
    running.run("systemctl", "stop", WEB)
    assert running.show(WEB, "Result")["Result"] == "success"


def test_the_live_page_on_a_unix_socket_is_the_web_server_s_alone(running: Machine) -> None:
    (running.root / "etc/tmpfiles.d/web.conf").write_text(
        f"d {SOCKET.parent} 2750 decnet-reaper www-data -\n"
    )
    running.run("systemd-tmpfiles", "--create", "web.conf")
    with drop_in(running, WEB, f"ExecStart=\nExecStart={COMMAND} web --listen unix:{SOCKET}"):
        running.run("systemctl", "start", WEB)
        reach = ("python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKET}')")
        running.run("runuser", "--user", "www-data", "--", *reach)
        assert (
            "PermissionError" in running.run("runuser", "--user", "nobody", "--", *reach, check=False).stderr
        )
        running.run("systemctl", "stop", WEB)


def test_a_token_that_cannot_be_used_is_one_line(running: Machine) -> None:
    secret = running.root / "etc/credstore/decnet-reaper.web_tokens"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("ada:hunter2")
    with drop_in(running, WEB, f"ExecStart=\nExecStart={COMMAND} web --actions"):
        since = running.now()
        assert running.run("systemctl", "start", WEB, check=False).returncode != 0
        state = running.show(WEB, "ActiveState", "ExecMainStatus")
        assert state == {"ActiveState": "failed", "ExecMainStatus": "2"}, "it is not tried again and again"
        (line,) = journal(running, "-tdecnet-reaper-web", since=since)
        assert "the setting web_tokens can't be used: its entry 1 is not NAME:TOKEN" in line
        assert "hunter2" not in line
    secret.unlink()
    running.run("systemctl", "reset-failed", WEB)


def test_uninstalling_keeps_the_rows(running: Machine) -> None:
    deploy = Deploy(running, gated=False)
    deploy.event("lifecycle.succeeded")
    running.run(COMMAND, "uninstall")
    assert running.run("systemctl", "list-units", "--no-legend", "--all", "decnet-*").stdout == ""
    running.run(COMMAND, "install")
    running.run("systemctl", "enable", TARGET)
    assert deploy.row()["status"] == "succeeded"
