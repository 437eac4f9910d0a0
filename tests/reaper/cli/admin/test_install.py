"""What `decnet-reaper install` leaves on a disk, checked by systemd's own tools where they are."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from reaper.cli.admin.install import install
from reaper.cli.admin.system_files import InstallError
from reaper.cli.admin.uninstall import uninstall
from reaper.settings import ReaperSettings, load
from tests.docs.generate.manual import pages
from tests.support.needs import need

COMMAND = Path("/bin/sh")
WORKER, REAPER, SWEEP = "decnet-worker@.service", "decnet-reaper.service", "decnet-reaper-sweep.service"
WEB = "decnet-reaper-web.service"
CONFIG = "etc/decnet-reaper/config.toml"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    install(tmp_path, dry_run=False, command=COMMAND)
    return tmp_path


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def analyze() -> str:
    need("systemd-analyze")
    return "systemd-analyze"


def files_below(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_the_units_run_the_command_that_was_given(prefix: Path) -> None:
    units = {name: text for name, text in files_below(prefix).items() if name.endswith(".service")}
    assert len(units) == 4
    started = [line for text in units.values() for line in text.splitlines() if line.startswith("Exec")]
    assert {line.split("=", 1)[1].lstrip("-").split()[0] for line in started} == {
        "/bin/sh",
        "/bin/kill",
        sys.executable,
    }


def test_the_man_pages_are_where_man_looks_and_gone_after_uninstall(prefix: Path) -> None:
    directory = prefix / "usr/local/share/man/man1"
    assert {path.name: path.read_text() for path in directory.iterdir()} == pages()
    (directory / "another.1").touch()
    (directory / "decnet-reaper.1").write_text("of an earlier release")
    said = install(prefix, dry_run=False, command=COMMAND)
    assert f"wrote 1 man pages in {directory}" in said
    assert f"removed {len(pages())} man pages in {directory}" in uninstall(prefix, dry_run=False)
    assert [path.name for path in directory.iterdir()] == ["another.1"]


def test_a_second_install_changes_nothing(prefix: Path) -> None:
    before = files_below(prefix)
    said = install(prefix, dry_run=False, command=COMMAND)
    assert files_below(prefix) == before
    assert {line.split()[0] for line in said} == {"unchanged", "kept"}


def test_an_install_updates_units_and_keeps_the_configuration(prefix: Path) -> None:
    (prefix / CONFIG).write_text('redis = "redis://elsewhere"\n')
    unit = prefix / "etc/systemd/system" / REAPER
    unit.write_text("[Unit]\nDescription=old\n")
    said = install(prefix, dry_run=False, command=COMMAND)
    assert (prefix / CONFIG).read_text() == 'redis = "redis://elsewhere"\n'
    assert "ExecStart=" in unit.read_text()
    assert f"wrote {unit}" in said
    assert f"kept {prefix / CONFIG}" in said


def test_a_unit_is_replaced_as_a_whole(prefix: Path) -> None:
    unit = prefix / "etc/systemd/system" / REAPER
    unit.write_text("[Unit]\nDescription=old\n")
    before = prefix / "before"
    before.hardlink_to(unit)
    (unit.parent / f".{REAPER}.new").write_text("of an install that was killed")
    install(prefix, dry_run=False, command=COMMAND)
    assert before.read_text() == "[Unit]\nDescription=old\n"
    assert "ExecStart=" in unit.read_text()
    assert not [path for path in unit.parent.iterdir() if path.name.startswith(".")]


def test_a_unit_that_is_masked_or_a_link_stays_what_it_is(tmp_path: Path) -> None:
    target = tmp_path / "another"
    target.write_text("another's")
    target.chmod(0o666)
    unit = tmp_path / "etc/systemd/system" / WEB
    unit.parent.mkdir(parents=True)
    unit.symlink_to(target)
    for dry_run in (True, False):
        said = install(tmp_path, dry_run=dry_run, command=COMMAND)
        assert f"kept {unit}, which is masked or a link" in said
        assert f"removed {unit}" not in uninstall(tmp_path, dry_run=dry_run)
        assert unit.readlink() == target
        assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("another's", 0o666)


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    said = install(tmp_path, dry_run=True, command=COMMAND)
    assert files_below(tmp_path) == {}
    assert install(tmp_path, dry_run=False, command=COMMAND) == said


def test_uninstall_removes_what_was_installed_and_nothing_else(prefix: Path) -> None:
    data = prefix / "var/lib/decnet-reaper/decnet-reaper.db"
    data.parent.mkdir(parents=True)
    data.write_text("rows")
    (drop_ins := prefix / f"etc/systemd/system/{REAPER}.d").mkdir()
    planned = uninstall(prefix, dry_run=True)
    assert drop_ins.is_dir()
    assert uninstall(prefix, dry_run=False) == planned
    assert set(files_below(prefix)) == {CONFIG, "var/lib/decnet-reaper/decnet-reaper.db"}
    assert [line.split()[0] for line in uninstall(prefix, dry_run=False)] == ["kept"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("nowhere/decnet-reaper", "there is no command"),
        ("a b/decnet-reaper", "can't stand in a unit"),
    ],
)
def test_a_command_that_units_cannot_run_is_refused(tmp_path: Path, command: str, reason: str) -> None:
    if "nowhere" not in command:
        (tmp_path / command).parent.mkdir()
        (tmp_path / command).symlink_to(COMMAND)
    with pytest.raises(InstallError, match=reason):
        install(tmp_path / "root", dry_run=False, command=tmp_path / command)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("closed", ["bin", "bin/decnet-reaper"])
def test_a_command_that_is_closed_to_the_service_s_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    monkeypatch.setattr("reaper.cli.admin.install._HIDDEN", ())  # the directory of the tests may be there
    command = tmp_path / "bin/decnet-reaper"
    command.parent.mkdir()
    command.touch(0o755)
    (tmp_path / closed).chmod(0o700)
    with pytest.raises(InstallError, match=f"{closed} is closed to other users"):
        install(tmp_path / "root", dry_run=False, command=command)
    assert not (tmp_path / "root").exists()


@pytest.mark.usefixtures("strict_umask")
def test_the_service_s_user_can_enter_what_is_installed_under_a_strict_umask(tmp_path: Path) -> None:
    install(root := tmp_path / "root", dry_run=False, command=COMMAND)
    made = [path for path in (root, *root.rglob("*")) if path.is_dir()]
    assert root / "etc/decnet-reaper" in made
    assert {path.stat().st_mode & 0o777 for path in made} == {0o755}


def test_a_prefix_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")
    with pytest.raises(InstallError, match=r"etc/systemd/system/decnet-reaper.target can't be written: "):
        install(tmp_path, dry_run=False, command=COMMAND)


def test_the_configuration_names_every_setting_with_its_default(prefix: Path) -> None:
    text = (prefix / CONFIG).read_text()
    commented = tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text))
    assert set(commented) == {field.name for field in msgspec.structs.fields(ReaperSettings)}
    # What the units set, what has no default that could be shown, and what the service decides for itself.
    set_by_units = {
        "database",
        "redis",
        "state_dir",
        "runtime_dir",
        "host_uuid",
        "runtime",
        "runtime_command",
        "web_tokens",
    }
    shown = {key: value for key, value in commented.items() if key not in set_by_units}
    given = {f"DECNET_REAPER_{key.upper()}": str(value) for key, value in shown.items()}
    settings = load(ReaperSettings, given | {"DECNET_REAPER_CONFIG": os.devnull})
    assert settings == load(ReaperSettings, {"DECNET_REAPER_CONFIG": os.devnull})


def test_the_configuration_is_accepted_as_it_is(prefix: Path) -> None:
    settings = load(ReaperSettings, {"DECNET_REAPER_CONFIG": str(prefix / CONFIG)}, strict=True)
    assert settings.redis == "redis://127.0.0.1:6379/0"


def test_systemd_finds_nothing_to_complain_about(prefix: Path, analyze: str) -> None:
    units = sorted((prefix / "etc/systemd/system").iterdir())
    checked = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, units)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in checked.stderr.splitlines() if "decnet" in line]
    assert complaints == []


@pytest.mark.parametrize(("unit", "at_most"), [(WORKER, 1.5), (REAPER, 1.2), (SWEEP, 1.2), (WEB, 1.2)])
def test_systemd_rates_the_sandbox(prefix: Path, analyze: str, unit: str, at_most: float) -> None:
    rating = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={round(at_most * 10)}", "--no-pager",
         str(prefix / "etc/systemd/system" / unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rating.returncode == 0, rating.stdout + rating.stderr
