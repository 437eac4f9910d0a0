"""Output that can't be written is one line and a status; a log that can't be written is nobody's failure."""

import os
import subprocess
import sys

import pytest

from tests.support.fleet import Fleet

pytestmark = pytest.mark.anyio


def in_shell(fleet: Fleet, line: str, stdout: int | None = None) -> tuple[int, str]:
    """Run a line of shell, in which $reaper is our command; its exit status and its stderr."""
    done = subprocess.run(
        ["bash", "-c", line],
        env=fleet.environment | {"reaper": f"{sys.executable} -m reaper"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["list --json", "--help", "deploy --help", "--version"])
@pytest.mark.parametrize(
    ("stdout", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
async def test_output_that_cannot_be_written_is_one_line(
    fleet: Fleet, command: str, stdout: str, why: str
) -> None:
    said = f"decnet-reaper: the output can't be written: {why}\n"
    assert in_shell(fleet, f"$reaper {command} {stdout}") == (3, said)


@pytest.mark.parametrize("command", ["list --json", "--help"])
async def test_a_reader_that_is_gone_ends_the_command_silently(fleet: Fleet, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert in_shell(fleet, f"$reaper {command}", stdout=writer) == (141, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2> >(:)"])
@pytest.mark.parametrize(("command", "status"), [("list", 0), ("list --limit many", 2), ("deploy x", 2)])
async def test_an_error_that_cannot_be_said_leaves_the_status_as_it_is(
    fleet: Fleet, stderr: str, command: str, status: int
) -> None:
    assert in_shell(fleet, f"$reaper {command} {stderr}")[0] == status


async def test_what_is_opened_later_does_not_take_the_place_of_a_closed_stream(fleet: Fleet) -> None:
    assert in_shell(fleet, "$reaper list --json <&- >&- 2>&-")[0] == 3
    async with fleet.client() as client:
        assert await client.repository.list_lifecycles() == []
