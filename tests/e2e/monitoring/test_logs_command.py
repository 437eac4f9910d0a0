"""`decnet-reaper logs`: one story, in order, from a file, from standard input, or from the journal."""

import itertools
import json
import os
import stat
import subprocess
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

from reaper.cli.main import cli
from reaper.cli.observe.log_sources import IDENTIFIERS
from tests.support.programs.other_user import python_as

RECORDED = Path(__file__).with_name("recorded.log")
STORY = [
    "lifecycle.running",
    "lifecycle.swept",
    "lifecycle.accepted",
    "lifecycle.running",
    "lifecycle.succeeded",
]


def call(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["logs", *arguments], input=stdin)


def lines() -> list[dict[str, str]]:
    return [json.loads(text) for text in RECORDED.read_text().splitlines() if text.startswith("{")]


def swept() -> dict[str, str]:
    return next(line for line in lines() if line["event"] == "lifecycle.swept")


def events(result: Result) -> list[str]:
    return [json.loads(text)["event"] for text in result.stdout.splitlines()]


@pytest.mark.parametrize("length", [36, 8])
def test_the_story_of_an_id_goes_on_with_its_retry(length: int) -> None:
    result = call(swept()["lifecycle_id"][-length:], "--file", str(RECORDED), "--json")
    assert events(result) == STORY


def test_the_story_of_a_decky() -> None:
    result = call("killed-00", "--file", str(RECORDED), "--json")
    assert events(result) == STORY


def test_lines_are_put_in_order() -> None:
    shuffled = RECORDED.read_text().splitlines()
    Random(3).shuffle(shuffled)  # noqa: S311
    result = call("killed-00", "--file", "-", "--json", stdin="\n".join(shuffled))
    assert events(result) == STORY


def test_for_a_person_it_is_one_line_an_event_with_the_reason() -> None:
    result = call("killed-00", "--file", str(RECORDED))
    day, *told = result.stdout.splitlines()
    assert day.endswith("2026")
    assert [text.split()[1] for text in told] == [name.removeprefix("lifecycle.") for name in STORY]
    assert told[1].endswith(f"retried as {swept()['retry_id'][-8:]}: worker died during operation")
    assert "pid" in told[0]


def test_level_and_since_choose() -> None:
    errors = call("--file", str(RECORDED), "--level", "error", "--json")
    assert {json.loads(text)["level"] for text in errors.stdout.splitlines()} == {"error"}
    late = call("--file", str(RECORDED), "--since", "2026-11-23T18:00:00Z", "--json")
    assert len(events(late)) == sum(line["timestamp"] >= "2026-11-23T18" for line in lines())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nobody", "--file", str(RECORDED)], 2, "nothing was logged about nobody in"),
        (["--file", "/no/such/file"], 2, "can't be read"),
        (["--since", "soon", "--file", str(RECORDED)], 2, "such as 10m"),
        (["--follow", "--file", str(RECORDED)], 2, "not a file"),
    ],
)
def test_bad_usage_is_one_clear_line(arguments: list[str], status: int, said: str) -> None:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert said in result.stderr


def test_what_is_no_line_of_ours_is_passed_over() -> None:
    noise = '[]\n{"event": 3}\n{"a": \n' + "[" * 100_000 + '\n<6>{"event": "worker.stopped", "owner": "x"}\n'
    assert events(call("--file", "-", "--json", stdin=noise)) == ["worker.stopped"]


def entry(message: object, **fields: str) -> str:
    """An entry as `journalctl --output=json` prints it."""
    return json.dumps({"MESSAGE": message, **fields})


def test_a_command_of_root_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = next(text for text in RECORDED.read_text().splitlines() if "lifecycle.accepted" in text)
    journalctl = tmp_path / "journalctl"
    journalctl.write_text(
        f"#!/bin/sh\necho '{entry(accepted, SYSLOG_IDENTIFIER='decnet-command', _UID='0')}'\n"
    )
    journalctl.chmod(journalctl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert events(call("--since", "2026-01-01", "--json")) == ["lifecycle.accepted"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be another user")
def test_who_may_not_look_into_the_state_directory_reads_the_journal() -> None:
    with TemporaryDirectory() as directory:
        place = Path(directory)
        place.chmod(0o755)
        (place / "state").mkdir(mode=0o770)
        (place / "entries").write_text(entry(json.dumps(swept()), _SYSTEMD_UNIT="decnet-reaper.service"))
        journalctl = place / "journalctl"
        journalctl.write_text(f"#!/bin/sh\ncat {place}/entries\n")
        journalctl.chmod(0o755)
        command = python_as(54325, place)
        command += ["-m", "reaper", "logs", "--since", "2026-01-01", "--json"]
        environment = {
            "PATH": f"{place}:{os.environ['PATH']}",
            "DECNET_REAPER_CONFIG": os.devnull,
            "DECNET_REAPER_STATE_DIR": str(place / "state"),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == swept()


ODD = [None, 0, -1.5, "", "two", [], [1, {}], {}, {"a": [None]}, True, "\x1b[2J", "9" * 400]


def test_fields_of_any_kind_are_shown_somehow() -> None:
    names = [
        *("timestamp", "level", "lifecycle_id", "decky_name", "operation", "attempt", "retry_of", "retry_id"),
        *("owner", "duration_s", "queue_wait_s", "error", "reason", "exception", "logger", "another"),
    ]
    kinds = ["lifecycle.running", "lifecycle.accepted", "lifecycle.failed", "reaper.swept", "worker.stopped"]
    odd_lines = itertools.product(kinds, names, ODD)
    noise = [json.dumps({"event": kind, "lifecycle_id": "x", name: odd}) for kind, name, odd in odd_lines]
    result = call("--file", "-", stdin="\n".join(noise))
    assert result.exit_code == 0, result.exception
    assert len(result.stdout.splitlines()) >= len(noise)
    assert "\x1b" not in result.stdout


def test_the_journal_is_asked_for_our_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journalctl = tmp_path / "journalctl"
    forged = json.dumps(swept() | {"event": "lifecycle.failed", "error": "forged"})
    entries = [
        entry(text, _SYSTEMD_UNIT="decnet-worker@1.service") for text in RECORDED.read_text().splitlines()
    ]
    entries += [
        entry(forged, SYSLOG_IDENTIFIER="decnet-worker", _SYSTEMD_UNIT="user@1000.service"),
        entry(forged, SYSLOG_IDENTIFIER="decnet-worker", _UID="1000"),
        entry(forged, SYSLOG_IDENTIFIER="decnet-command", _UID="4294967294"),
        entry(None, _SYSTEMD_UNIT="decnet-worker@1.service"),
        entry([123, 34], _SYSTEMD_UNIT="decnet-worker@1.service"),
        "not JSON",
    ]
    (tmp_path / "entries").write_text("\n".join(entries))
    journalctl.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\ncat {tmp_path}/entries\n')
    journalctl.chmod(journalctl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert events(call("killed-00", "--json")) == STORY
    asked = (tmp_path / "asked").read_text()
    assert all(f"--identifier={name}" in asked.split() for name in IDENTIFIERS)
    assert "killed" not in asked
    call("--since", "2026-11-23T18:00:00Z")
    assert "--since=@1795456800" in (tmp_path / "asked").read_text()
