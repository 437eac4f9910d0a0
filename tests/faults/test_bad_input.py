"""Hundreds of bad inputs: each gets one clear error, nothing is changed, nobody sees a traceback."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reaper.cli import main as cli
from reaper.settings import ReaperSettings, SettingsError, load
from repo.factory import get_repository
from tests.support.fleet import Fleet
from tests.support.programs.other_user import python_as
from worker.client import InvalidDocument, InvalidRequest, LifecycleClient
from worker.queue import InvalidDSN, Queue
from worker.queue.jobs import Refused, read_job

DECKY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DOCUMENT = {"services": {"decky-01": {"command": "sleep 1"}}}
bounded = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

text = st.text(st.characters(codec=None), max_size=80)
names = st.one_of(
    text,
    st.from_regex(DECKY_NAME, fullmatch=True).map(lambda name: name + "\n"),
    st.sampled_from(["", "-a", "a" * 129, "A", "a_b", "a/b", "../a", "ä", "a\0", "--help", "a b", "."]),
).filter(lambda name: not DECKY_NAME.fullmatch(name))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text, st.binary(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=8,
)


@pytest.fixture
def client_settings(tmp_path: Path) -> ReaperSettings:
    return ReaperSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run")


def one_line(error: BaseException) -> None:
    message = str(error)
    assert message.strip()
    assert message.isprintable(), repr(message)
    assert len(message) < 2_000


def refused(client_settings: ReaperSettings, *calls: tuple[str, Any, dict[str, Any]]) -> None:
    """Each call is refused with one clear line, and no row exists afterwards."""

    async def attempt() -> None:
        async with LifecycleClient(client_settings) as client:
            for method, name, arguments in calls:
                with pytest.raises((InvalidRequest, InvalidDocument)) as error:
                    await getattr(client, method)(name, **arguments)
                one_line(error.value)
            assert await client.repository.list_lifecycles() == []

    asyncio.run(attempt())


@bounded
@given(name=names)
def test_names(client_settings: ReaperSettings, name: str) -> None:
    refused(
        client_settings,
        ("deploy", name, {"compose": DOCUMENT}),
        ("mutate", name, {"services": ["ssh"]}),
    )


@pytest.mark.parametrize("name", [None, 1, b"decky-01", ["decky-01"], object(), float("nan")])
def test_names_that_are_no_text(client_settings: ReaperSettings, name: object) -> None:
    refused(client_settings, ("deploy", name, {"compose": DOCUMENT}))


@bounded
@given(host=text.filter(lambda host: not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", host)))
def test_hosts(client_settings: ReaperSettings, host: str) -> None:
    refused(client_settings, ("deploy", "decky-01", {"compose": DOCUMENT, "host_uuid": host}))


@bounded
@given(services=st.one_of(json_values, st.lists(text, max_size=4)))
def test_services_of_a_decky_that_was_never_deployed(client_settings: ReaperSettings, services: Any) -> None:
    if services is not None:
        refused(client_settings, ("mutate", "decky-01", {"services": services}))


@bounded
@given(document=st.one_of(json_values, st.dictionaries(text, json_values), st.binary(), text))
def test_documents(client_settings: ReaperSettings, document: Any) -> None:
    """Refused with one line, or taken and written down unchanged; nothing in between."""

    async def attempt() -> None:
        async with LifecycleClient(client_settings) as client:
            try:
                row = await client.repository.get_lifecycle_by_ids(
                    [await client.deploy("decky-01", compose=document)]
                )
            except (InvalidDocument, InvalidRequest) as error:
                one_line(error)
                return
            assert json.loads(json.dumps(row))[0]["payload"]["compose"]["services"]
            await client.repository.request_cancel(row[0]["id"])

    asyncio.run(attempt())


FIELDS = [field.name for field in msgspec.structs.fields(ReaperSettings)]


@bounded
@given(name=st.sampled_from([*FIELDS, "no_such_setting"]), value=text)
def test_settings(name: str, value: str) -> None:
    environ = {"DECNET_REAPER_CONFIG": os.devnull, f"DECNET_REAPER_{name.upper()}": value}
    try:
        load(ReaperSettings, environ, strict=True)
    except SettingsError as error:
        one_line(error)
        found = name.upper() in str(error).upper()
    else:
        found = name in FIELDS
    assert found


@bounded
@given(content=st.binary(max_size=200))
def test_configuration_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with contextlib.suppress(SettingsError):
        try:
            load(ReaperSettings, {"DECNET_REAPER_CONFIG": str(path)}, strict=True)
        except SettingsError as error:
            one_line(error)
            raise


def dsns() -> st.SearchStrategy[str]:
    schemes = st.sampled_from(["redis", "rediss", "unix", "http", "", "REDIS", "redis+tls"])
    return st.one_of(text, st.builds("{}://{}".format, schemes, text), st.builds("unix:///{}".format, text))


@bounded
@given(dsn=dsns())
def test_dsns(dsn: str) -> None:
    async def attempt() -> None:
        queue = Queue(dsn)
        assert queue.name.isprintable()
        await queue.close()

    try:
        asyncio.run(attempt())
    except InvalidDSN as error:
        one_line(error)


@bounded
@given(url=st.builds("{}://{}".format, st.sampled_from(["sqlite", "postgresql", "x", ""]), text))
def test_database_urls(url: str) -> None:
    from repo.errors import StoreUnusable

    with contextlib.suppress(StoreUnusable):
        get_repository(url=url)


@bounded
@given(
    body=st.one_of(
        st.binary(max_size=300),
        json_values.map(lambda value: json.dumps(value, default=repr).encode()),
        st.fixed_dictionaries({"f": text, "a": st.lists(json_values, max_size=3), "et": st.integers()}).map(
            lambda job: json.dumps(job, default=repr).encode()
        ),
    )
)
def test_job_bytes(body: bytes) -> None:
    try:
        job = read_job(body, {"deploy"}, 1)
    except Refused as error:
        one_line(error)
    else:
        assert (job.f, len(job.a)) == ("deploy", 1)


COMMANDS = ["deploy", "mutate", "status", "cancel", "list", "sweep", "doctor", "watch", "worker", "reaper"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[None]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("DECNET_REAPER_")}
    mine |= {
        "DECNET_REAPER_CONFIG": os.devnull,
        "DECNET_REAPER_STATE_DIR": str(tmp_path / "state"),
        "DECNET_REAPER_RUNTIME_DIR": str(tmp_path / "run"),
    }
    with mock.patch.dict(os.environ, mine, clear=True):
        yield


@bounded
@given(
    command=st.sampled_from(COMMANDS),
    arguments=st.lists(
        st.one_of(text, st.sampled_from(["--json", "--wait", "--compose", "--services", "-", "--limit"])),
        min_size=1,
        max_size=4,
    ),
)
@pytest.mark.usefixtures("environment")
def test_command_lines(command: str, arguments: list[str]) -> None:
    # What can't be an argument is left out, and a leading word keeps daemons from being started.
    given = [argument.replace("\0", "") for argument in arguments]
    result = CliRunner().invoke(cli.cli, [command, "--no-such-option", *given])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Usage:")


BAD_COMMANDS: list[tuple[list[str], bytes, int]] = [
    (["deploy", "-x", "--compose", "-"], b"", 2),
    (["deploy", "--compose", "-"], b"", 2),
    (["deploy", "decky-01", "--compose", "-"], b"", 2),
    (["deploy", "decky-01", "--compose", "-"], b"\xff\xfe", 2),
    (["deploy", "decky-01", "--compose", "-"], b"services: [", 2),
    (["deploy", "decky-01", "--compose", "-"], b"services: {a: {}, b: {}}", 2),
    (["deploy", "decky-01", "--compose", "-"], b"!!python/object/apply:os.system [true]", 2),
    (["deploy", "decky-01", "--compose", "-"], b"x" * (2 << 20), 2),
    (["deploy", "decky-01", "--compose", "/dev/null"], b"", 2),
    (["deploy", "decky-01", "--compose", "/no/such"], b"", 2),
    (["deploy", "a" * 129, "--compose", "-"], b"services: {a: {}}", 2),
    (["mutate", "decky-01", "--services", ",,"], b"", 2),
    (["mutate", "decky-01", "--services", ""], b"", 2),
    (["deploy", "decky-99", "--compose", "-"], b"services: {decky-01: {}, decky-01-ssh: {}}", 2),
    (["deploy", "decky-99", "--compose", "-"], b"services: {decky-01: {}}", 2),
    (["mutate", "decky-01", "--services", "a", "--compose", "-"], b"", 2),
    (["status", "no-such-id"], b"", 2),
    (["cancel", "no-such-id"], b"", 2),
    (["list", "--limit", "0"], b"", 2),
    (["list", "--limit", "many"], b"", 2),
    (["sweep", "--older-than", "-1s"], b"", 2),
    (["sweep", "--owner-pid", "x"], b"", 2),
    (["up", "--workers", "0"], b"", 2),
    ([], b"", 2),
]
BAD_SETTINGS: list[tuple[str, str, int]] = [
    ("MAX_JOBS", "0", 2),
    ("MAX_JOBS", "many", 2),
    ("REAP_INTERVAL", "0s", 2),
    ("REAP_INTERVAL", "soon", 2),
    ("RUNTIME", "podman", 2),
    ("LOG_LEVEL", "loud", 2),
    ("REDIS", "http://localhost", 2),
    ("REDIS", "redis://:secret@host:port", 2),
    ("HOST_UUID", "a b", 2),
    ("NO_SUCH", "1", 2),
    ("CONFIG", "/no/such.toml", 2),
    ("DATABASE", "postgresql://:secret@db/x", 3),
    ("DATABASE", "/dev/null", 3),
    ("DATABASE", "/", 3),
    ("DATABASE", "~no-such-user/x.db", 3),
    ("DATABASE", "/proc/x/store.db", 3),
    ("RUNTIME_DIR", "/dev/null", 3),
    ("RUNTIME_DIR", "/proc/x", 3),
]


@pytest.mark.anyio
async def test_the_real_command(fleet: Fleet) -> None:
    """Some of it through the real command, a daemon's JSON line where it is a daemon that is refused."""
    running = asyncio.Semaphore(4)

    async def refuse(arguments: list[str], stdin: bytes, status: int, **environment: str) -> None:
        async with running:
            code, out, err = await fleet.run(*arguments, stdin=stdin, **environment)
        assert (code, out) == (status, ""), (arguments, environment, code, out, err)
        assert err.strip(), arguments
        assert "Traceback" not in err, (arguments, err)
        assert "secret" not in err, (arguments, err)

    await asyncio.gather(*(refuse(*case) for case in BAD_COMMANDS))
    await asyncio.gather(
        *(
            refuse(["reaper"], b"", status, **{f"DECNET_REAPER_{setting}": value})
            for setting, value, status in BAD_SETTINGS
        )
    )
    async with fleet.client() as client:
        assert await client.repository.list_lifecycles() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be another user")
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    with TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "DECNET_REAPER_PRIVATE": "1"}
        command = [*python_as(54324, Path(place)), "-m", "reaper", "list"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "decnet-reaper: state_dir has no default, since user 54324 has no home directory: set"
        " DECNET_REAPER_STATE_DIR, XDG_STATE_HOME or HOME\n"
    )
