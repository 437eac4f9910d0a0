"""The command line, piped: what scripts rely on, what is refused and how."""

import asyncio
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from reaper.cli.main import SECTIONS, cli
from tests.support.fleet import Fleet, exits, wait_status

pytestmark = pytest.mark.anyio

JSON_KEYS = [
    *("id", "decky_name", "host_uuid", "operation", "status", "outcome", "error"),
    *("started_at", "claimed_at", "completed_at", "updated_at"),
    *("attempt", "retry_of", "retry_id", "owner", "cancel_requested_at", "deliveries", "enqueued_at"),
    *("age_s", "queue_wait_s", "duration_s", "host_away"),
]
COMMANDS = cli.list_commands(click.Context(cli))


async def run_json(fleet: Fleet, *arguments: str) -> Any:
    status, out, err = await fleet.run(*arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def both(fleet: Fleet) -> str:
    """One document of two deckies."""
    services = fleet.document("decky-01", "ssh")["services"] | fleet.document("decky-02", "ssh")["services"]
    file = fleet.root / "both.json"
    file.write_text(json.dumps({"services": services}))
    return str(file)


def states(operation: str, *deckies: int) -> set[str]:
    """What a command that waits, piped, may say on standard error while it waits: a line a state."""
    return {f"{operation} of decky-{each:02} {state}" for each in deckies for state in ("pending", "running")}


async def test_json_has_the_documented_keys_and_never_the_document(fleet: Fleet) -> None:
    await fleet.worker()
    file = fleet.root / "decky-01.json"
    document = fleet.document("decky-01")
    document["services"]["decky-01"]["environment"] = {"PASSWORD": "hunter2"}
    file.write_text(json.dumps(document))
    row = await run_json(fleet, "deploy", "decky-01", "--compose", str(file), "--wait")
    assert list(row) == JSON_KEYS
    assert row["queue_wait_s"] >= 0
    assert row["age_s"] >= row["queue_wait_s"] + row["duration_s"] > 0
    for command in (["list"], ["status", row["id"]]):
        [same] = await run_json(fleet, *command)
        assert list(same) == JSON_KEYS
        assert {**same, "age_s": 0} == {**row, "age_s": 0}
        assert "hunter2" not in json.dumps(same)


def test_each_json_key_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()
    assert [key for key in JSON_KEYS if f"`{key}`" not in text] == []


async def test_one_document_for_several_deckies(fleet: Fleet) -> None:
    await fleet.worker()
    status, out, err = await fleet.run("deploy", "decky-01", "decky-02", "--compose", both(fleet), "--wait")
    assert status == 0
    assert set(err.splitlines()) <= states("deploy", 1, 2)
    assert out.startswith("2 deckies: 2 succeeded, 0 failed, in ")
    rows = await run_json(fleet, "mutate", "decky-01", "decky-02", "--services", "ssh")
    assert [(row["decky_name"], row["operation"]) for row in rows] == [
        ("decky-01", "mutate"),
        ("decky-02", "mutate"),
    ]


async def test_a_piped_table_cuts_nothing_and_has_a_line_a_row(fleet: Fleet) -> None:
    reason = "it is long\nand has lines, " * 20
    async with fleet.client() as client:
        bad = await client.repository.create_lifecycle({"decky_name": "d" * 63, "operation": "deploy"})
        await client.repository.update_lifecycle(bad, {"status": "failed", "error": reason})
    status, out, _ = await fleet.run("list")
    heading, line = out.splitlines()
    assert status == 0
    assert heading.split() == ["id", "decky", "operation", "state", "age", "wait", "took", "try", "error"]
    assert line.split()[:4] == [bad, "d" * 63, "deploy", "failed"]
    assert line.endswith(" ".join(reason.split()))
    assert "\x1b" not in out


async def test_a_fleet_is_a_directory_of_documents(fleet: Fleet) -> None:
    directory = fleet.root / "fleet"
    directory.mkdir()
    for name in ("decky-01.json", "decky-02.yaml", "decky-03.yml"):
        (directory / name).write_text(json.dumps(fleet.document(Path(name).stem)))
    broken = fleet.document("decky-04", "http")
    broken["services"]["decky-04-http"] |= exits("sh", "-c", "echo no such key; exit 7")
    (directory / "decky-04.yaml").write_text(json.dumps(broken))
    (directory / "README").write_text("not a document")
    await fleet.worker()
    status, out, err = await fleet.run("deploy", "--fleet", str(directory), "--wait")
    assert status == 1
    assert set(err.splitlines()) <= states("deploy", 1, 2, 3, 4)
    failed, summary = out.splitlines()
    assert failed.startswith("deploy of decky-04 failed (")
    assert "no such key" in failed
    assert summary.startswith("4 deckies: 3 succeeded, 1 failed, in ")


async def test_bad_files_of_a_fleet_are_told_before_anything_is_submitted(fleet: Fleet) -> None:
    directory = fleet.root / "fleet"
    directory.mkdir()
    for name, text in {
        "decky-01.json": json.dumps(fleet.document("decky-01")),
        "decky-02.yaml": "services: [",
        "decky-02.yml": json.dumps(fleet.document("decky-02")),
        "decky 03.yaml": json.dumps(fleet.document("decky-03")),
        "decky-04.json": "[]",
    }.items():
        (directory / name).write_text(text)
    status, out, err = await fleet.run("deploy", "--fleet", str(directory))
    assert (status, out) == (2, "")
    lines = err.splitlines()
    for name in ("decky-02.yaml", "decky-02.yml", "decky 03.yaml", "decky-04.json"):
        assert sum(f"decnet-reaper: {directory / name}: " in line for line in lines) == 1, err
    assert "nothing was submitted" in lines[-1]
    assert await run_json(fleet, "list") == []


async def test_filters(fleet: Fleet) -> None:
    async with fleet.client() as client:
        repository = client.repository
        old = datetime.now(UTC) - timedelta(hours=3)
        a = await repository.create_lifecycle({"decky_name": "a", "operation": "deploy", "started_at": old})
        b = await repository.create_lifecycle({"decky_name": "b", "operation": "deploy", "host_uuid": "h1"})
        c = await repository.create_lifecycle({"decky_name": "c", "operation": "deploy"})
        await repository.update_lifecycle(a, {"status": "failed", "error": "no"})
        await repository.update_lifecycle(c, {"status": "succeeded"})
    for arguments, expected in {
        (): {a, b, c},
        ("--state", "failed"): {a},
        ("--state", "failed", "--state", "pending"): {a, b},
        ("--open",): {b},
        ("--since", "1h"): {b, c},
        ("--since", (old - timedelta(minutes=1)).isoformat()): {a, b, c},
        ("--host", "h1"): {b},
        ("--decky", "c"): {c},
        ("--decky", "c", "--open"): set(),
        ("--limit", "1"): {c},
    }.items():
        assert {row["id"] for row in await run_json(fleet, "list", *arguments)} == expected, arguments


async def test_ids_may_be_given_by_their_ends_and_several_at_once(fleet: Fleet) -> None:
    async with fleet.client() as client:
        ids = [await client.deploy(name, fleet.document(name)) for name in ("decky-01", "decky-02")]
    rows = await run_json(fleet, "status", ids[0][-8:], ids[1])
    assert [row["id"] for row in rows] == ids
    status, out, err = await fleet.run("cancel", *[each[-8:] for each in ids], "no-such-id", "--json")
    assert status == 2
    assert [(row["id"], row["error"]) for row in json.loads(out)] == [
        (each, "cancelled by operator") for each in ids
    ]
    assert err.splitlines() == [
        "decnet-reaper: there is no lifecycle no-such-id; decnet-reaper list --open shows what can be ended"
    ]


async def test_waiting_follows_the_retry_of_a_killed_worker(fleet: Fleet) -> None:
    worker = await fleet.worker()
    await fleet.reaper()
    file = fleet.root / "decky-01.json"
    file.write_text(json.dumps(fleet.document("decky-01", gate=fleet.gate())))
    waiting = asyncio.create_task(fleet.run("deploy", "decky-01", "--compose", str(file), "--wait"))
    line = await worker.log("lifecycle.running")
    await worker.kill()
    async with fleet.client() as client:
        await wait_status(client, line["lifecycle_id"], "failed")
    fleet.gate().touch()
    await fleet.worker()
    status, out, err = await waiting
    assert status == 0
    died = "deploy of decky-01 failed: worker died during operation; tried again as "
    retried = died + out.split()[4].strip("(,")[-8:]
    assert retried in err.splitlines()
    assert set(err.splitlines()) <= states("deploy", 1) | {retried}
    assert out.startswith("deploy of decky-01 succeeded (")
    assert out.endswith(", attempt 2)\n")


async def test_without_redis_a_deploy_is_accepted_and_says_so_in_a_sentence(fleet: Fleet) -> None:
    await fleet.kill_queue()
    document = json.dumps(fleet.document("decky-01", "ssh")).encode()
    status, out, err = await fleet.run("deploy", "decky-01", "--compose", "-", stdin=document)
    assert (status, len(out.split())) == (0, 1)
    assert re.fullmatch(
        r"decnet-reaper: Redis can't be used: unix://.*: .+; mend Redis; nothing is lost, work goes on\n", err
    )


async def test_a_host_that_nobody_here_serves_is_warned_of(fleet: Fleet) -> None:
    file = both(fleet)
    status, out, err = await fleet.run("deploy", "decky-01", "--compose", file, "--host", "elsewhere")
    assert status == 0
    assert len(out.split()) == 1
    assert "warning: this installation serves the master's own deckies" in err
    assert "host elsewhere stays pending" in err
    fleet.set(host_uuid="elsewhere")
    status, _, err = await fleet.run("deploy", "decky-02", "--compose", file, "--host", "elsewhere")
    assert (status, err) == (0, "")


async def test_a_reader_that_goes_away_is_no_error(fleet: Fleet) -> None:
    async with fleet.client() as client:
        await client.deploy("decky-01", fleet.document("decky-01"))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "reaper", "list"]
    process = await asyncio.create_subprocess_exec(
        *command, env=fleet.environment, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


async def test_piped_watch_prints_a_line_for_each_change(fleet: Fleet) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reaper", "watch", "--json"),
        env=fleet.environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with fleet.client() as client:
            lifecycle_id = await client.deploy("decky-01", fleet.document("decky-01"))
            assert json.loads(await process.stdout.readline())["status"] == "pending"
            await client.cancel(lifecycle_id)
            row = json.loads(await process.stdout.readline())
        assert (row["id"], row["status"]) == (lifecycle_id, "failed")
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["deploy", "--fleet", "/no/such/directory"], 2, "can't be read: No such file or directory"),
        (["deploy", "decky-01", "--fleet", "/"], 2, "--fleet DIR takes neither"),
        (["list", "--since", "yesterday"], 2, "expected a duration such as 10m"),
        (["list", "--since", "999999999999d"], 2, "expected a duration such as 10m"),
        (["list", "--open", "--state", "failed"], 2, "--open means"),
        (["list", "--state", "lost"], 2, "'pending', 'running', 'succeeded', 'failed'"),
        (["status"], 2, "Missing argument"),
        (["sweep", "--older-than", "soon"], 2, "'soon': expected a duration above zero, such as 30s"),
        (["timeline", "-o", "timeline.pdf"], 2, "must end in .html, .svg or .png"),
        (["install", "--prefix", "/no/such/prefix/at/all", "--nope"], 2, "No such option"),
        (["nope"], 2, "No such command 'nope' (see decnet-reaper --help)"),
        (["deplo"], 2, "No such command 'deplo'; did you mean deploy or demo?"),
        (["status", "x"], 2, "there is no lifecycle x; decnet-reaper list shows"),
        (["deploy", "decky-01", "--compose", "-"], 2, "standard input: the document must be a mapping"),
        (["deploy", "decky-01", "--compose", "/dev/null"], 2, "/dev/null: the document must be a mapping"),
        (["deploy", "decky-01", "--compose", "/dev"], 2, "/dev can't be read: Is a directory"),
    ],
)
async def test_bad_usage_is_one_line(fleet: Fleet, arguments: list[str], status: int, said: str) -> None:
    code, out, err = await fleet.run(*arguments)
    assert (code, out) == (status, "")
    assert err.startswith("decnet-reaper: ")
    assert said in err
    assert err.count("\n") == 1


async def test_what_the_output_s_encoding_does_not_have_is_written_out(fleet: Fleet) -> None:
    async with fleet.client() as client:
        row = await client.repository.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
        await client.repository.update_lifecycle(row, {"status": "failed", "error": "a → b"})
    status, out, err = await fleet.run("list", PYTHONIOENCODING="latin-1")
    assert (status, err) == (0, "")
    assert r"a \u2192 b" in out


async def test_a_store_that_cannot_be_used_is_one_line(fleet: Fleet) -> None:
    fleet.set(database=str(fleet.root))
    for command in (["list"], ["status", "x"], ["watch"], ["timeline"]):
        status, out, err = await fleet.run(*command)
        assert (status, out) == (3, "")
        assert str(fleet.root) in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"asyncio", "sqlalchemy", "arq", "redis", "structlog", "rich", "msgspec"}),
        (["list", "--decky", "decky-01"], {"arq", "redis", "structlog", "rich", "yaml", "sqlalchemy"}),
        (["deckies"], {"arq", "redis", "structlog", "rich", "sqlalchemy"}),
        (["sweep"], {"sqlalchemy", "sqlmodel", "pydantic"}),
    ],
)
async def test_commands_import_what_they_use(fleet: Fleet, arguments: list[str], unwanted: set[str]) -> None:
    async with fleet.client():
        pass  # so that there is nothing to migrate
    program = (
        "import sys; sys.argv[0] = 'decnet-reaper'\nfrom reaper.cli.main import main\ntry: main()\nfinally: "
    )
    program += "print(*sys.modules, file=sys.stderr)"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments),
        env=fleet.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, err = await process.communicate()
    modules = set(err.decode().split())
    assert "click" in modules
    assert modules & unwanted == set()


def test_the_table_says_of_each_command_what_its_own_help_says() -> None:
    for section in SECTIONS:
        for name, text in section.commands.items():
            command = cli.get_command(click.Context(cli), name)
            assert command is not None
            assert command.get_short_help_str(200) == text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_example(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = command.get_help(
        click.Context(command, info_name=f"decnet-reaper {name}", terminal_width=80, **cli.context_settings)
    )
    assert max(len(line) for line in text.splitlines()) <= 110
    assert "\n  Examples:\n    " in text
    assert f"decnet-reaper {name}" in text.partition("Examples:")[2]
    assert not re.search(r"^ {3,}[A-Z]\w+ \w+ ", text.partition("Examples:")[0], re.MULTILINE), (
        "indented text"
    )
    assert not command.get_short_help_str(45).endswith("..."), "its first sentence is too long for a list"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} has no help"
