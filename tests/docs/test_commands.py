"""Every command in the documentation is run, or where that can't be, checked. The rule: docs/README.md."""

import ast
import asyncio
import fnmatch
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from reaper.cli.main import cli
from reaper.cli.observe.log_sources import IDENTIFIERS
from reaper.settings import ReaperSettings, load
from tests.support.decnet.store import Decnet
from tests.support.fleet import HANG_GUARD_S
from tests.support.needs import need
from worker.runtimes.process import ProcessRuntime

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOW_TO = ROOT / "docs" / "how-to"
UNITS = [path.name for path in (ROOT / "systemd" / "system").iterdir()]
PROGRAMS = {
    *("apt-get", "cp", "docker", "install", "journalctl", "ln", "mkdir", "printf", "python3", "redis-cli"),
    *("chgrp", "chmod", "chown", "rm", "sqlite3", "tee"),
    *("systemctl", "usermod", "createdb", "createuser", "pg_dump", "pg_restore"),
    "/opt/decnet-reaper/bin/pip",
}

# What ./run does beside our own commands.
DEVELOPERS = set(re.findall(r"^#:   \./run (\w+)", (ROOT / "run").read_text(), re.MULTILINE)) - {"demo"}

# What the documentation calls decnet-reaper, python3 and ./run is this very checkout.
SHIMS = {
    "decnet-reaper": f'exec {sys.executable} -m reaper "$@"',
    "python3": f'exec {sys.executable} "$@"',
    "run": f'exec {sys.executable} -m reaper "$@"',
}

# What a page says that it can do without.
MISSING = {"tutorial.md": ("docker", "redis-cli")}


class Block(NamedTuple):
    """A fenced block: where it stands, its info string, its text."""

    page: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *infos: str) -> list[Block]:
    text = page.read_text()
    found = re.finditer(r"^```(\S[^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    all_ = [Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]
    return [block for block in all_ if block.info in infos]


def script(page: Path, directory: Path) -> str:
    """The page's blocks as one program; it says where it is on its standard error."""
    lines = ["set -eu", "terminals=", "trap 'for pid in $terminals; do kill $pid; wait $pid || :; done' EXIT"]
    for block in blocks(page, "sh", "sh terminal"):
        lines.append(f"echo '>>> {block}' >&2")
        if block.info == "sh":
            lines.append(block.text)
        else:
            before, _, last = block.text.rstrip().rpartition("\n")
            terminal = directory / f"terminal-{block.line}"
            terminal.write_text(f"set -eu\n{before}\nexec {last}\n")  # so that a signal reaches the program
            lines.append(f'bash {terminal} & terminals="$terminals $!"')
    return "\n".join(lines)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path, for the sake of AF_UNIX."""
    made = Path(tempfile.mkdtemp(prefix="docs-"))
    yield made
    shutil.rmtree(made)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: str(page.relative_to(ROOT))
)
async def test_the_commands_of_a_page_run(page: Path, directory: Path) -> None:
    need("redis-cli", "sqlite3")
    Decnet(directory / "decnet.db").engine.dispose()
    for name, text in (SHIMS | dict.fromkeys(MISSING.get(page.name, ()), "exit 127")).items():
        shim = directory / ("run" if name == "run" else f"bin/{name}")
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f"#!/bin/sh\n{text}\n")
        shim.chmod(0o700)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DECNET")}
    environment = kept | {
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(directory),
        "DECNET_REAPER_STATE_DIR": str(directory / "state"),
        "DECNET_REAPER_RUNTIME_DIR": str(directory / "run.d"),
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script(page, directory)),
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(HANG_GUARD_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        for decky in (directory / "state" / "deckies").glob("*"):
            await ProcessRuntime(directory / "state").remove(decky.name)
    assert process.returncode == 0, said.decode()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_not_run_is_there(page: Path) -> None:
    for block in blocks(page, "sh checked"):
        for line in block.text.replace("\\\n", " ").splitlines():
            check(line, strict=True)
    for line in told(page):
        check(re.split(r"[,;] ", line)[0], strict=False)


def told(page: Path) -> list[str]:
    """Commands in indented blocks and in running text."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (?:\$ )?(\S.*)$", prose, re.MULTILINE)
    inline = re.findall(r"`([^`\n]+ [^`\n]+)`", prose)
    return indented + [text for text in inline if not re.search(r"[\[(|]|\.\.\.", text)]


def check(line: str, *, strict: bool) -> None:
    """Fail where a line calls what isn't there. Not strict, it need be no command at all."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        assert not strict, line
        return
    if words[:1] == ["sudo"]:
        words = words[1:]
    if words[:1] == ["runuser"]:
        words = words[words.index("--") + 1 :]
    words = list(itertools.takewhile(lambda word: not re.match(r"[|>;]|&&", word), words))
    if not words or (words[0] == "./run" and words[1:2] and words[1] in DEVELOPERS):
        return
    if Path(words[0]).name == "decnet-reaper" or words[0] == "./run":
        command_line_is_good(words[1:])
    elif strict:
        assert words[0] in PROGRAMS, line
    if words[0] in ("systemctl", "journalctl"):
        for name in re.findall(r"decnet-[\w.@*-]+", line):
            assert unit_exists(name) or name in IDENTIFIERS, f"{name} in {line}"


def command_line_is_good(words: list[str]) -> None:
    """Raises:
    click.UsageError: there is no such command, option or argument.
    """
    with cli.make_context("decnet-reaper", words) as context:
        name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None, name
        command.make_context(name, rest, parent=context)


def unit_exists(name: str) -> bool:
    pattern = re.sub(r"@[^.*]+", "@", name).replace("@*", "@")
    return any(fnmatch.fnmatch(unit, glob) for unit in UNITS for glob in (pattern, f"{pattern}.*"))


def test_the_settings_of_the_tutorial_keep_it_away_from_what_is_installed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = directory / "config.toml"
    config.write_text(
        'database = "/srv/installed.db"\nredis = "redis://installed"\nhost_uuid = "installed"\n'
    )
    monkeypatch.setattr("repo.settings.DEFAULT_CONFIG", config)
    makes = next(b for b in blocks(ROOT / "docs" / "tutorial.md", "sh") if ">settings.sh" in b.text)
    said = bash(directory, f"{makes.text}. ./settings.sh; env -0").stdout
    settings = load(ReaperSettings, dict(line.split("=", 1) for line in said.split("\0") if line))
    assert settings.database == str(directory / "state" / "decnet-reaper.db")
    assert settings.redis == f"unix://{directory}/sockets/queue.sock"
    assert settings.host_uuid is None


def test_a_backup_is_of_the_service_s_store_and_not_of_one_that_is_missing(directory: Path) -> None:
    need("sqlite3")
    store, _, *copy = blocks(HOW_TO / "back-up.md", "sh")[0].text.splitlines()
    assert bash(directory, f"{store}\necho $store").stdout == "/var/lib/decnet-reaper/decnet-reaper.db\n"
    done = bash(directory, "\n".join([store, *copy]), DECNET_REAPER_STATE_DIR=str(directory))
    assert done.returncode != 0
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "setting", "needed"),
    [
        ("install.md", "IPAddressAllow=", "IPAddressDeny=any"),
        ("move-in.md", "ReadWritePaths=", "ReadWritePaths="),
    ],
)
def test_a_drop_in_is_made_for_each_unit_that_needs_it(
    page: str, setting: str, needed: str, directory: Path
) -> None:
    [block] = [block for block in blocks(HOW_TO / page, "sh checked") if setting in block.text]
    makes = re.findall(r"^(?:mkdir|printf) .*(?:\n .*)*", block.text, re.MULTILINE)
    done = bash(directory, "\n".join(makes).replace("/etc/systemd/system", str(directory)))
    assert done.returncode == 0, done.stderr
    made = {path.parent.name.removesuffix(".d") for path in directory.glob("*.d/*.conf")}
    shipped = (ROOT / "systemd" / "system").iterdir()
    assert made == {unit.name for unit in shipped if re.search(f"^{needed}", unit.read_text(), re.MULTILINE)}


def bash(directory: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run commands there, with nothing else in the environment."""
    environment |= {"PATH": os.environ["PATH"]}
    return subprocess.run(
        ["bash", "-ec", text], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def test_a_wrong_command_would_be_noticed() -> None:
    for words in (["deploi"], ["deploy", "decky-01", "--compos", "x"], ["list", "--limit", "many"]):
        with pytest.raises(click.UsageError):
            command_line_is_good(words)
    assert not unit_exists("decnet-workers@1")
    assert unit_exists("decnet-worker@2")


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks(page, "python")], ids=str)
def test_python_blocks_run(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(block.text, str(block), "exec", flags=flags, dont_inherit=True)
    if block.page.name != "README.md":
        exec(code, {"__name__": "page"})  # noqa: S102 - our own documentation


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    fences = re.findall(r"^```([^\n]*)$", page.read_text(), re.MULTILINE)
    assert len(fences) % 2 == 0
    known = {"sh", "sh terminal", "sh checked", "python", "text", "diff", "toml", "yaml", "json", "mermaid"}
    assert set(fences[::2]) <= known
    assert set(fences[1::2]) <= {""}
