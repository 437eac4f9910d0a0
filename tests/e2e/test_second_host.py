"""A second host, as docs/how-to/several-hosts.md has it: two machines with a real systemd, and a cable."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine.deploy import COMMAND, STATE, document, event
from tests.support.machine.systemd_machine import Machine, machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

MASTER, SECOND = "192.0.2.1", "192.0.2.2"
SECRET = "of-a-test"  # noqa: S105 - a server's that lives as long as the test
GATE = STATE / "gate"
USER_FILE = "/etc/redis/users.acl"
SERVERS = f"""
set -eu
psql() {{ runuser -u postgres -- psql --quiet --command "$1"; }}
psql "CREATE ROLE decnet SUPERUSER LOGIN PASSWORD '{SECRET}'"
psql "CREATE DATABASE decnet OWNER decnet"
psql "ALTER SYSTEM SET listen_addresses = '*'"
echo 'host all all {MASTER}/24 scram-sha-256' >>"$(echo /etc/postgresql/*/main/pg_hba.conf)"
echo 'user default on >{SECRET} ~* &* +@all' >{USER_FILE}
chown redis: {USER_FILE}
printf '%s\n' 'bind * -::*' 'aclfile {USER_FILE}' >>/etc/redis/redis.conf
systemctl restart 'postgresql@*' redis-server
"""
ADMINISTRATOR = f"""
host_uuid = "h1"
database = "postgresql://decnet@{MASTER}/decnet"
database_password = "{SECRET}"
redis = "redis://:{SECRET}@{MASTER}/0"
"""


def join(master: Machine, second: Machine) -> None:
    master.connect(MASTER, second, SECOND)


def install(host: Machine, printed: str) -> None:
    """As `... | ssh root@host decnet-reaper install --secrets -`."""
    file = host.root / "root/host.toml"
    file.write_text(printed)
    host.run("sh", "-c", f"{COMMAND} install --secrets - </root/host.toml")
    file.unlink()


@pytest.fixture(scope="module")
def hosts(machines: Path) -> Iterator[tuple[Machine, Machine]]:
    """The master with its servers and daemons, and a machine that is no host of it yet."""
    with machine(machines) as master, machine(machines) as second:
        join(master, second)
        master.run("sh", "-c", SERVERS)
        install(master, ADMINISTRATOR)
        config = master.root / "etc/decnet-reaper/config.toml"
        config.write_text(f'{config.read_text()}\nhost_lost_after = "3s"\n')
        master.run(COMMAND, "doctor", "--create")
        master.run("systemctl", "enable", "--now", "decnet-reaper.target")
        yield master, second


def deploy(master: Machine, decky: str, *options: str, gated: bool) -> str:
    """Submit one to the second host; the id. A gated one runs until its gate is there."""
    (master.root / "root/decky.json").write_text(document(decky, GATE if gated else None))
    said = master.run(COMMAND, "deploy", decky, "--host", "h2", "--compose", "/root/decky.json", *options)
    return said.stdout.strip()


def shown(master: Machine) -> dict[str, dict[str, Any]]:
    hosts = json.loads(master.run(COMMAND, "hosts", "--json").stdout)
    return {host["host_uuid"]: host for host in hosts}


def test_a_second_host_is_added_serves_its_deckies_is_lost_and_returns(
    hosts: tuple[Machine, Machine],
) -> None:
    master, second = hosts
    printed = master.run(COMMAND, "hosts", "add", "h2").stdout
    install(second, printed)
    second.run("systemctl", "enable", "--now", "decnet-reaper.target")
    second.run(COMMAND, "doctor")
    assert {name: host["state"] for name, host in shown(master).items()} == {"h1": "present", "h2": "present"}
    assert len(shown(master)["h2"]["daemons"]) == 2

    deploy(master, "decky-01", "--wait", gated=False)
    interrupted = deploy(master, "decky-02", gated=True)
    event(second, "lifecycle.running", lifecycle_id=interrupted)
    second.power_off()
    event(master, "host.lost", host_uuid="h2")
    event(master, "lifecycle.lost", lifecycle_id=interrupted)
    assert json.loads(master.run(COMMAND, "status", interrupted, "--json").stdout)[0]["outcome"] == "lost"

    with second.booting():  # its daemons want the store
        join(master, second)
    (second.root / GATE.relative_to("/")).touch()
    event(master, "host.returned", host_uuid="h2")
    event(second, "lifecycle.succeeded", retry_of=interrupted)
    assert shown(master)["h2"]["state"] == "present"
    journal = second.run("journalctl", "--boot=all", "--output=json").stdout
    assert all(secret not in journal for secret in (SECRET, tomllib.loads(printed)["database_password"]))
