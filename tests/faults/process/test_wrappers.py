"""Commands around Compose that close what they inherit: the lock would be free while an operation goes on."""

import sys
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from worker.runtimes.inheritance import keeps_descriptors

pytestmark = pytest.mark.anyio

# As Compose where it is asked for its version, its projects, and to read a document.
COMPOSE = """
import sys
if "version" in sys.argv:
    print("2.40.3")
elif "--file" in sys.argv:
    open(sys.argv[sys.argv.index("--file") + 1]).read()
"""
WRAPPERS = {
    "itself": ('exec {compose} "$@"', True),
    "a shell in between": ('{compose} "$@"; exit $?', True),
    "closes all and becomes Compose": (
        'for fd in /proc/self/fd/*; do n=${{fd##*/}}; [ $n -gt 2 ] && eval "exec $n>&-"; done;'
        ' exec {compose} "$@"',
        False,
    ),
    "keeps its own, starts Compose without": (
        "exec {python} -c 'import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))' {compose} \"$@\"",
        False,
    ),
    "ends before it reads": ("exit 0", True),
}


def wrapper(directory: Path, body: str) -> str:
    compose = directory / "compose.py"
    compose.write_text(COMPOSE)
    script = directory / "wrapper"
    script.write_text(
        "#!/bin/bash\n" + body.format(compose=f"{sys.executable} {compose}", python=sys.executable)
    )
    script.chmod(0o700)
    return str(script)


@pytest.mark.parametrize("name", WRAPPERS)
async def test_what_a_wrapper_does_with_descriptors_is_tried(tmp_path: Path, name: str) -> None:
    body, keeps = WRAPPERS[name]
    assert await keeps_descriptors([wrapper(tmp_path, body)]) is keeps


async def test_a_wrapper_that_closes_them_is_refused_at_the_workers_start_with_one_line(fleet: Fleet) -> None:
    command = wrapper(fleet.root, WRAPPERS["closes all and becomes Compose"][0])
    fleet.set(runtime="compose", compose_command=command)
    status, out, err = await fleet.run("worker", DECNET_REAPER_LOG_FORMAT="console")
    assert (status, out) == (3, "")
    [line] = err.strip().splitlines()
    assert "closes the descriptors that it inherits" in line
