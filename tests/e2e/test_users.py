"""Root, the service, and other users on one machine: who may use the service's store."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine.deploy import COMMAND
from tests.support.machine.systemd_machine import Machine, machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

REAPER, WORKER = "decnet-reaper.service", "decnet-worker@1.service"
DATABASE = "/var/lib/decnet-reaper/decnet-reaper.db"
DOCUMENT = json.dumps({"services": {"decky-01": {"command": ["sleep", "infinity"]}}})
DROP_IN = "[Service]\nEnvironment=DECNET_REAPER_RUNTIME=process\n"


@pytest.fixture(scope="module")
def host(machines: Path) -> Iterator[Machine]:
    with machine(machines) as host:
        host.run(COMMAND, "list")  # too early: nothing is installed, and the store becomes root's
        host.run(COMMAND, "install")
        drop_in = host.root / "etc/systemd/system/decnet-worker@.service.d/test.conf"
        drop_in.parent.mkdir()
        drop_in.write_text(DROP_IN)
        host.run("systemctl", "daemon-reload")
        host.run("useradd", "--create-home", "--groups", "decnet-reaper", "alice")
        host.run("useradd", "--create-home", "bob")
        (host.root / "srv/decky-01.yaml").write_text(DOCUMENT)
        yield host


def test_what_root_made_too_early_is_the_services(host: Machine) -> None:
    for restarted in range(2):
        host.run("systemctl", "restart", REAPER, WORKER)
        assert host.show(REAPER, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
        host.run(COMMAND, "list")
        owners = host.run("sh", "-c", f"stat --format='%U:%G %a' {DATABASE}*").stdout.splitlines()
        assert {line.split()[0] for line in owners} == {"decnet-reaper:decnet-reaper"}, restarted
        assert "decnet-reaper:decnet-reaper 660" in owners
        host.run("systemctl", "stop", REAPER, WORKER)
        host.run("sh", "-c", f"rm --recursive {DATABASE}*; redis-cli FLUSHALL")  # a queue knows its store
        host.run(COMMAND, "list")  # as root, before the service makes a new one


def test_a_member_of_the_group_submits_and_reads_and_another_user_is_told(host: Machine) -> None:
    host.run("systemctl", "restart", REAPER, WORKER)
    deploy = ["deploy", "decky-01", "--compose", "/srv/decky-01.yaml", "--wait"]
    said = host.run("runuser", "-u", "alice", "--", COMMAND, *deploy).stdout
    assert said.startswith("deploy of decky-01 succeeded (")
    assert "decky-01" in host.run("runuser", "-u", "alice", "--", COMMAND, "list").stdout
    for command in (["list"], deploy):
        told = host.run("runuser", "-u", "bob", "--", COMMAND, *command, check=False)
        assert (told.returncode, told.stdout) == (3, "")
        assert told.stderr == (
            f"decnet-reaper: {DATABASE}: user bob may not use it, but decnet-reaper and the members of group"
            " decnet-reaper: sudo usermod -aG decnet-reaper bob, then log in again; for a store of your own,"
            " set DECNET_REAPER_PRIVATE=1\n"
        )
    private = host.run("runuser", "-u", "bob", "--", "env", "DECNET_REAPER_PRIVATE=1", COMMAND, "list")
    assert (private.stdout, private.stderr) == ("", "decnet-reaper: there are no rows yet\n")


def test_a_daemon_that_cannot_use_its_store_says_so_and_is_not_restarted_at_once(host: Machine) -> None:
    host.run("systemctl", "stop", REAPER, WORKER)
    host.run("sh", "-c", f"chown root {DATABASE}*; chmod 600 {DATABASE}")
    asked = host.cursor()
    host.run("systemctl", "start", "--no-block", REAPER)
    line = host.wait_for(lambda entry: entry["EVENT"].get("event") == "daemon.failed", since=asked)["EVENT"]
    assert line["exit_status"] == 3
    assert line["reason"].startswith(f"{DATABASE}: can't be written by user ")
    assert host.show(REAPER, "NRestarts", "SubState") == {"NRestarts": "0", "SubState": "start"}
    assert host.run(COMMAND, "install").stdout.count("to the user decnet-reaper") > 0
    host.run("systemctl", "restart", REAPER)
    assert host.show(REAPER, "ActiveState")["ActiveState"] == "active"
