"""`decnet-reaper install --host`: what makes a machine a host of a fleet, and no secret that others see."""

import io
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from reaper.cli.admin.install import install
from reaper.cli.admin.install_host import HostSettings
from reaper.cli.admin.system_files import InstallError
from reaper.cli.admin.uninstall import uninstall
from reaper.cli.main import cli
from reaper.settings import ReaperSettings, load
from repo.errors import DecnetReaperError

COMMAND = Path("/bin/sh")
CONFIG = "etc/decnet-reaper/config.toml"
UNITS = ("decnet-reaper.service", "decnet-reaper-sweep.service", "decnet-reaper-web.service")
DATABASE = "postgresql://decnet_host_h2@192.0.2.10,[2001:db8::10]:5433/decnet?sslmode=require"
QUEUE = "rediss://decnet_host_h2@192.0.2.11:6379/0"
OPTIONS = {"host_uuid": "h2", "database": DATABASE, "redis": QUEUE}
PRINTED = OPTIONS | {
    "redis": "rediss://decnet_host_h2:queue%20secret@192.0.2.11:6379/0",
    "database_password": "store secret",
}
SECRETS = {"redis": PRINTED["redis"], "database_password": PRINTED["database_password"]}


def as_printed(given: dict[str, str]) -> io.StringIO:
    """As `hosts add` prints it."""
    lines = [f"{name} = {json.dumps(text)}\n" for name, text in given.items()]
    return io.StringIO("".join(["# For h2\n", *lines]))


def set_up(prefix: Path, *, dry_run: bool = False, **changed: str) -> list[str]:
    host = HostSettings.read({}, as_printed(PRINTED | changed))
    return install(prefix, dry_run=dry_run, command=COMMAND, host=host)


def test_the_daemons_of_the_host_find_its_settings_and_its_secrets(tmp_path: Path) -> None:
    said = set_up(tmp_path)
    credentials = tmp_path / "etc/credstore"
    assert {path.name: path.read_text() for path in credentials.iterdir()} == {
        f"decnet-reaper.{name}": secret for name, secret in SECRETS.items()
    }
    assert {path.stat().st_mode & 0o777 for path in credentials.iterdir()} == {0o600}
    assert credentials.stat().st_mode & 0o777 == 0o700
    config = tmp_path / CONFIG
    assert OPTIONS.items() <= tomllib.loads(config.read_text()).items()
    handed = tmp_path / "handed"  # as systemd does
    handed.mkdir()
    for name, secret in SECRETS.items():
        (handed / name).write_text(secret)
    names = {"DECNET_REAPER_CONFIG": str(config), "CREDENTIALS_DIRECTORY": str(handed)}
    settings = load(ReaperSettings, names, strict=True)
    assert {name: getattr(settings, name) for name in PRINTED} == PRINTED
    everything = "\n".join(said) + config.read_text()
    assert not any(re.search(r"store secret|queue%20secret", text) for text in (everything, repr(said)))


def test_the_reaper_s_units_reach_the_servers_and_their_own_machine(tmp_path: Path) -> None:
    set_up(tmp_path)
    for unit in UNITS:
        drop_in = (tmp_path / f"etc/systemd/system/{unit}.d/servers.conf").read_text()
        assert "IPAddressAllow=localhost 192.0.2.10 192.0.2.11 2001:db8::10\n" in drop_in
    set_up(tmp_path / "names", redis="redis://:secret@localhost:6379/0")
    drop_in = (tmp_path / f"names/etc/systemd/system/{UNITS[0]}.d/servers.conf").read_text()
    assert "127.0.0.1" not in drop_in, "its own machine it reaches anyway"


def test_twice_changes_nothing_and_a_dry_run_says_the_same(tmp_path: Path) -> None:
    planned = set_up(tmp_path, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert set_up(tmp_path) == planned
    assert {line.split()[0] for line in set_up(tmp_path)} == {"unchanged"}


def test_what_else_the_configuration_says_stays_and_so_does_who_may_read_it(tmp_path: Path) -> None:
    config = tmp_path / CONFIG
    config.parent.mkdir(parents=True)
    config.write_text('max_jobs = 3\n#host_uuid = ""\nredis = "redis://old"\n')
    config.chmod(0o640)
    set_up(tmp_path)
    assert tomllib.loads(config.read_text()) == {"max_jobs": 3, **OPTIONS}
    assert config.stat().st_mode & 0o777 == 0o640
    before = config.read_text()
    with pytest.raises(InstallError, match="this is host h2, and a machine stays the host that it is"):
        set_up(tmp_path, host_uuid="h3")
    assert config.read_text() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_configuration_stays_its_group_s(tmp_path: Path) -> None:
    config = tmp_path / CONFIG
    config.parent.mkdir(parents=True)
    config.touch(mode=0o640)
    os.chown(config, -1, 12345)
    set_up(tmp_path)
    assert (config.stat().st_gid, config.stat().st_mode & 0o777) == (12345, 0o640)


@pytest.mark.parametrize("name", [CONFIG, "etc/credstore/decnet-reaper.redis"])
def test_a_link_in_the_place_of_a_setting_is_one_clear_line(tmp_path: Path, name: str) -> None:
    (target := tmp_path / "another").write_text("max_jobs = 3\n")
    link = tmp_path / name
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(InstallError, match=f"{name} is a link, which would be kept as it is"):
        set_up(tmp_path)
    assert target.read_text() == "max_jobs = 3\n"


def test_behind_sentinel_it_says_that_only_the_sentinels_are_let_through(tmp_path: Path) -> None:
    said = set_up(tmp_path, redis="redis+sentinel://192.0.2.11,192.0.2.12/master")
    assert [line for line in said if line.startswith("next: ")] == [
        "next: Redis on other machines than its sentinels needs a drop-in: docs/how-to/several-hosts.md"
    ]
    for unit in UNITS:
        drop_in = tmp_path / f"etc/systemd/system/{unit}.d/servers.conf"
        assert {"192.0.2.11", "192.0.2.12"} <= set(drop_in.read_text().replace("=", " ").split())


def test_without_secrets_it_says_where_they_go_until_they_are_there(tmp_path: Path) -> None:
    host = HostSettings.read(OPTIONS, None)
    said = install(tmp_path, dry_run=False, command=COMMAND, host=host)
    store = tmp_path / "etc/credstore"
    credentials = [store / f"decnet-reaper.{name}" for name in ("database_password", "redis")]
    assert [line for line in said if line.startswith("next: ")] == [
        f"next: write the password of the database's user to {credentials[0]} (root, mode 0600)",
        f"next: write the queue's DSN with its password to {credentials[1]} (root, mode 0600)",
    ]
    for credential in credentials:
        credential.parent.mkdir(exist_ok=True)
        credential.touch()
    said = install(tmp_path, dry_run=False, command=COMMAND, host=host)
    assert {line.split()[0] for line in said} == {"unchanged"}


@pytest.mark.parametrize(
    ("options", "printed", "reason"),
    [
        ({"redis": "redis://:secret@queue/0"}, None, "--redis has a password, which everybody"),
        ({"redis": "redis+sentinel://one,two/m?sentinel_password=secret"}, None, "--redis has a password"),
        ({"database": "postgresql://u:se:cret@db/decnet"}, None, "--database has a password"),
        ({"database": "postgresql://u@db/decnet?password=secret"}, None, "--database has a password"),
        ({"redis": None}, None, "a host needs --redis"),
        ({"host_uuid": None}, None, "a host needs --host"),
        ({"host_uuid": "h/2"}, None, "'h/2' is no host id"),
        ({"database": "/var/lib/store.db"}, None, "database: hosts share a store in PostgreSQL"),
        ({"database": "postgresql://db/decnet?nonsense=1"}, None, "nonsense"),
        ({"redis": "http://queue"}, None, "Redis DSN"),
        ({}, PRINTED | {"host_uuid": "h3"}, "--host and host_uuid in the file of --secrets are not the same"),
        ({}, PRINTED | {"max_jobs": "3"}, "has max_jobs, which `hosts add` doesn't print"),
        ({}, {}, "is not what `decnet-reaper hosts add` prints"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_repeats_no_secret(
    options: dict[str, str | None], printed: dict[str, str] | None, reason: str
) -> None:
    file = None if printed is None else as_printed(printed)
    with pytest.raises(DecnetReaperError) as refused:
        HostSettings.read(OPTIONS | options, file)
    said = str(refused.value)
    assert reason in said
    assert "\n" not in said
    assert "cret" not in said.replace("--secrets", "")


def test_without_psycopg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "repo.postgres.server", raising=False)
    with pytest.raises(DecnetReaperError, match="psycopg is not installed; type: pip install"):
        HostSettings.read(OPTIONS, None)


def test_a_server_without_an_address_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    set_up(tmp_path)
    before = (tmp_path / CONFIG).read_text()
    with pytest.raises(InstallError, match=r"the server nowhere\.\.invalid has no address"):
        set_up(tmp_path, database="postgresql://decnet_host_h2@nowhere..invalid/decnet")
    assert (tmp_path / CONFIG).read_text() == before


def test_the_command_takes_what_hosts_add_prints_from_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reaper.cli.admin.install._own_command", lambda: COMMAND)
    given = ["install", "--secrets", "-", "--prefix", str(tmp_path), "--json"]
    ran = CliRunner().invoke(cli, given, input=as_printed(PRINTED).read(), standalone_mode=False)
    assert ran.exception is None
    assert f"wrote {tmp_path / CONFIG}" in json.loads(ran.stdout)
    assert "secret" not in ran.output
    assert (tmp_path / "etc/credstore/decnet-reaper.redis").read_text() == PRINTED["redis"]


def test_uninstall_takes_the_drop_ins_away_and_keeps_the_secrets(tmp_path: Path) -> None:
    set_up(tmp_path)
    uninstall(tmp_path, dry_run=False)
    assert list((tmp_path / "etc/systemd/system").iterdir()) == []
    assert len(list((tmp_path / "etc/credstore").iterdir())) == 2
