"""Settings: where they come from, and what a wrong one says."""

import re
from pathlib import Path

import pytest

from reaper.settings import ReaperSettings
from repo.settings import Seconds, SettingsError, load, without_password
from worker.settings import WorkerSettings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.touch()
    return path


def settings(config: Path, **variables: str) -> ReaperSettings:
    names = {f"DECNET_REAPER_{name}": value for name, value in variables.items()}
    return load(ReaperSettings, {"DECNET_REAPER_CONFIG": str(config), **names}, strict=True)


def test_the_environment_beats_a_credential_beats_the_file(config: Path, tmp_path: Path) -> None:
    config.write_text('redis = "redis://file"\nmax_jobs = 3\npending_ttl = "2h"\n')
    assert settings(config).redis == "redis://file"
    (tmp_path / "redis").write_text("redis://:secret@credential\n")
    environ = {"DECNET_REAPER_CONFIG": str(config), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(ReaperSettings, environ).redis == "redis://:secret@credential"
    environ["DECNET_REAPER_REDIS"] = "redis://environment"
    loaded = load(ReaperSettings, environ)
    assert (loaded.redis, loaded.max_jobs) == ("redis://environment", 3)
    assert loaded.pending_ttl == Seconds(7200)


def test_a_host_that_is_empty_is_none(config: Path) -> None:
    config.write_text('host_uuid = ""\n')
    assert settings(config).host_uuid is None


def test_root_s_own_commands_find_what_the_units_are_handed_unless_other_settings_are_named(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('redis = "redis://file"\n')
    monkeypatch.setattr("repo.settings.DEFAULT_CONFIG", config)
    monkeypatch.setattr("repo.settings.CREDENTIALS", tmp_path / "decnet-reaper.")
    (tmp_path / "decnet-reaper.redis").write_text("redis://:secret@credential\n")
    assert load(ReaperSettings, {}).redis == "redis://:secret@credential"
    assert load(ReaperSettings, {"DECNET_REAPER_CONFIG": str(config)}).redis == "redis://file"
    assert "credential" not in load(ReaperSettings, {"DECNET_REAPER_PRIVATE": "1"}).redis


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:se:c@ret@db1,db2:5433/n", "postgresql://u@db1,db2:5433/n"),
        ("rediss://:secret@queue/0", "rediss://@queue/0"),
        ("unix:///run/redis.sock?username=u&password=secret&db=1", "unix:///run/redis.sock?username=u&db=1"),
        ("redis://q/0?password=secret&sentinel_password=secret", "redis://q/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("/var/lib/store.db", "/var/lib/store.db"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("2d", 172800), ("1.5 h", 5400)],
)
def test_durations(config: Path, text: str, seconds: float) -> None:
    assert settings(config, OPERATION_TIMEOUT=text).operation_timeout == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_JOBS", "many"),
        ("MAX_JOBS", "0"),
        ("MAX_JOBS", "1.5"),
        ("RUNTIME", "podman"),
        ("OPERATION_TIMEOUT", "-1"),
        ("OPERATION_TIMEOUT", "0"),
        ("OPERATION_TIMEOUT", "soon"),
        ("OPERATION_TIMEOUT", "nan"),
        ("LOG_LEVEL", "loud"),
        ("HOST_UUID", "a b"),
        ("HOST_UUID", "h1\n"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(config: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(config, **{name: value})
    message = str(caught.value)
    assert name.lower() in message
    assert repr(value) in message
    assert "\n" not in message


def test_unknown_names_are_refused_by_commands_and_ignored_by_the_client(config: Path) -> None:
    with pytest.raises(SettingsError, match="unknown setting DECNET_REAPER_MAX_JOB"):
        settings(config, MAX_JOB="3")
    config.write_text("reap_intervall = 3\n")
    with pytest.raises(SettingsError, match="unknown setting reap_intervall in"):
        settings(config)
    assert load(WorkerSettings, {"DECNET_REAPER_CONFIG": str(config)}).max_jobs == 10


def test_a_file_that_can_not_be_read_is_one_line(config: Path, tmp_path: Path) -> None:
    config.write_text("max_jobs =")
    with pytest.raises(SettingsError, match="is not TOML"):
        settings(config)
    with pytest.raises(SettingsError, match="does not exist"):
        settings(tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match="can't be read: Is a directory"):
        settings(tmp_path)
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        settings(config)


def test_a_credential_that_can_not_be_read_is_one_line_without_its_content(
    config: Path, tmp_path: Path
) -> None:
    environ = {"DECNET_REAPER_CONFIG": str(config), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    credential = tmp_path / "redis"
    credential.write_bytes(b"redis://:secret\xff@queue")
    with pytest.raises(SettingsError) as caught:
        load(ReaperSettings, environ)
    assert str(caught.value) == f"the credential {credential} can't be read: it is not UTF-8 text"
    credential.unlink()
    credential.mkdir()
    with pytest.raises(SettingsError, match=f"{credential} can't be read: Is a directory"):
        load(ReaperSettings, environ)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (r'state_dir = "a\u0000"', r"state_dir can't be 'a\x00': expected text without a NUL character"),
        (
            r'runtime_command = ["a", "\u0000"]',
            r"runtime_command can't be ['a', '\x00']: expected text without",
        ),
        (
            r'database_password = "secret\u0000"',
            "database_password can't be its value: expected text without",
        ),
        ('state_dir = "~no-such-user/x"', "state_dir can't be '~no-such-user/x': there is no such home"),
    ],
)
def test_a_text_that_no_system_call_takes_is_one_line(config: Path, line: str, said: str) -> None:
    config.write_text(line)
    with pytest.raises(SettingsError, match=re.escape(said)):
        settings(config)


def test_paths_follow_the_directories(config: Path) -> None:
    loaded = settings(config, STATE_DIR="/s", RUNTIME_DIR="/r")
    assert (loaded.database, loaded.redis) == ("/s/decnet-reaper.db", "unix:///r/queue.sock")
