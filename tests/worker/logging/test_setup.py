"""What a log line looks like: one line, in order, with its priority in the journal, and without a secret."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.documents.masking import Mask, without_credentials
from worker.logging.console import ConsoleLine

ROOT = Path(__file__).parents[3]
JOURNAL_LINES = {"<3>": "error", "<4>": "warning", "<6>": "info", "<7>": "debug"}

LOG = """
import logging, sys
from worker.logging.emit import emit
from worker.logging.setup import configure
from worker.settings import WorkerSettings

configure(WorkerSettings(log_level="debug"))
emit("worker.stopped", owner="me")
emit("queue.job_refused", job_id="a\\nb\\x1b[31m\\u2028\\N{CROSS MARK}", reason="<3>")
emit("runtime.output", lifecycle_id="0190", decky_name="decky-01", line="x" * 500)
try:
    {}["missing"]
except KeyError as error:
    emit("worker.loop_failed", reason="KeyError", exc_info=error)
logging.getLogger("some.library").warning("it said %s", "so\\nand so")
logging.getLogger("some.library").error("y" * 100_000)
emit("store.unavailable", reason="/srv/\\udcff")
"""


def run(script: str, *, journal: bool = False, **environment: str) -> list[str]:
    """The lines that a script logs to its stderr, whatever it is."""
    read_end, write_end = os.pipe()
    env = {key: value for key, value in os.environ.items() if "DECNET" not in key} | environment
    env["PYTHONPATH"] = str(ROOT)
    env["DECNET_REAPER_STRICT_EVENTS"] = "1"
    if journal:
        status = os.fstat(write_end)
        env["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    child = subprocess.Popen([sys.executable, "-c", script], env=env, stderr=write_end)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        lines = stream.read().split("\n")
    child.wait()
    assert lines.pop() == ""
    return lines


def test_every_line_is_one_json_object_in_ascii_in_a_stable_order() -> None:
    lines = run(LOG)
    told = [json.loads(line) for line in lines]
    assert len(told) == 7
    assert all(line.isascii() and line.startswith('{"timestamp": "') for line in lines)
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in told)
    assert all(line["timestamp"].endswith("Z") for line in told)
    assert told[1]["job_id"] == "a\nb\x1b[31m\u2028\N{CROSS MARK}"
    assert list(told[3])[-1] == "exception"
    assert "KeyError: 'missing'" in told[3]["exception"]
    assert (told[4]["event"], told[4]["logger"]) == ("it said so\nand so", "some.library")
    assert told[6]["reason"] == "/srv/\udcff"


def test_no_line_is_longer_than_the_journal_keeps_in_one_piece() -> None:
    assert max(map(len, run(LOG))) < 48 * 1024


def test_in_the_journal_each_line_begins_with_its_priority() -> None:
    lines = run(LOG, journal=True)
    for line in lines:
        assert json.loads(line[3:])["level"] == JOURNAL_LINES[line[:3]]
    assert [line[:3] for line in lines] == ["<6>", "<4>", "<7>", "<3>", "<4>", "<3>", "<3>"]


def test_elsewhere_there_is_no_priority() -> None:
    assert all(line.startswith("{") for line in run(LOG, JOURNAL_STREAM="1:2"))


CRASH = """
from worker.logging.setup import configure
from worker.settings import WorkerSettings
configure(WorkerSettings())
raise RuntimeError("nobody\\nforesaw this")
"""


def test_what_nobody_foresaw_is_one_line_too() -> None:
    (line,) = run(CRASH, journal=True)
    told = json.loads(line.removeprefix("<3>"))
    assert (told["event"], told["exit_status"]) == ("daemon.failed", 1)
    assert "Traceback" in told["exception"]


def test_a_daemon_that_cannot_start_says_so_in_the_journal_and_to_a_person(tmp_path: Path) -> None:
    script = "import sys; sys.argv[1:] = ['worker']; from reaper.cli.main import main; main()"
    config = tmp_path / "config.toml"
    config.write_text('max_jobs = "many"')
    (line,) = run(script, journal=True, DECNET_REAPER_CONFIG=str(config))
    told = json.loads(line.removeprefix("<3>"))
    assert (told["event"], told["exit_status"]) == ("daemon.failed", 2)
    assert "max_jobs" in told["reason"]
    (line,) = run(script, DECNET_REAPER_CONFIG=str(config))
    assert line.startswith("decnet-reaper: the setting max_jobs")


SQL = """
import logging
from sqlalchemy import create_engine, text
from worker.logging.setup import configure
from worker.settings import WorkerSettings
configure(WorkerSettings(log_level="debug"))
with create_engine("sqlite://").connect() as connection:
    connection.execute(text("select :planted"), {"planted": "planted-secret"})
logging.getLogger("x").error("postgresql://me:planted-secret@host/db and redis://:planted-secret@h")
"""


def test_no_library_repeats_a_secret_even_at_debug() -> None:
    lines = run(SQL)
    assert "planted-secret" not in str(lines)
    assert json.loads(lines[-1])["event"] == "postgresql://***@host/db and redis://***@h"


@pytest.mark.parametrize(
    ("service", "hidden", "shown"),
    [
        ({"environment": {"DB_PASSWORD": "hunter2", "MODE": "production"}}, "hunter2", "production"),
        ({"environment": ["API_TOKEN=abc=def", "EMPTY"]}, "abc=def", "EMPTY"),
        ({"build": {"args": {"SECRET_KEY": "two\nlines"}}}, "lines", "two words"),
        ({"environment": {"PASS": "ab", "PASSWORD": "hunter2"}}, "hunter2", "about"),
        ({"environment": {"AUTH": "cost$$5", "AUTH_KEY": "cost$$5000"}}, "cost$5000", "cost"),
    ],
)
def test_secrets_of_a_document_are_masked_by_their_names(
    service: dict[str, Any], hidden: str, shown: str
) -> None:
    mask = Mask({"services": {"decky-01": service}})
    assert mask(f"it said {shown}") == f"it said {shown}"
    assert mask(f"before {hidden} after") == "before *** after"


def test_credentials_in_urls_are_masked_and_nothing_else() -> None:
    assert without_credentials("redis://user:p@ss/w@h:1/0, mail me@home") == "redis://***@h:1/0, mail me@home"
    assert (
        without_credentials("unix:///run/queue.sock?db=0 at 10:00") == "unix:///run/queue.sock?db=0 at 10:00"
    )


def line(event: str, **fields: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-01T10:00:00.123456Z", "level": "info", "event": event, **fields}


def test_on_a_terminal_a_line_is_short_aligned_and_cannot_steer_it() -> None:
    row = {"lifecycle_id": "0190aaaa-bbbb-cccc", "decky_name": "decky-01", "operation": "deploy"}
    render = ConsoleLine(colours=False, width=80)
    running = render(None, "", line("lifecycle.running", **row, queue_wait_s=0.012))
    failed = render(None, "", line("lifecycle.failed", **row, duration_s=61.0, error="\x1b[2J" + "why " * 40))
    assert running.index("decky-01") == failed.index("decky-01")
    assert running.endswith("deploy waited 12 ms")
    assert max(map(len, failed.splitlines())) <= 80
    assert "\x1b" not in failed
    coloured = ConsoleLine(colours=True)(None, "", line("lifecycle.succeeded", **row))
    assert "\x1b[32m" in coloured


def test_a_line_of_a_foreign_log_is_shown_as_it_can() -> None:
    render = ConsoleLine(colours=False)
    assert render(None, "", {"event": "hello"}).startswith("--:--:--.--- hello")
    odd = {"event": "lifecycle.running", "lifecycle_id": None, "attempt": None, "queue_wait_s": "x"}
    assert "running" in render(None, "", odd)
