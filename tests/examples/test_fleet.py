"""The fleet of examples/fleet: three hosts on one machine, and what somebody sees who starts it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.needs import lacking, need
from tests.support.network.namespaces import need_network
from tests.support.store.postgres_server import find_postgres

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.fleet"]


def told(*, umask: int = -1, **environment: str) -> tuple[int, str, str]:
    """What it prints, and its exit status."""
    done = subprocess.run(
        COMMAND,
        cwd=ROOT,
        env=os.environ | environment,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def left() -> list[str]:
    """Processes that the example has left behind, by what they are told to run."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            environ = (process / "environ").read_bytes()
        except OSError:
            continue
        if b"DECNET_REAPER_CONFIG=/run/fleet/" in environ or b"DECNET_STATE=/run/fleet/" in environ:
            found.append(process.name)
    return found


def test_the_story_of_a_cut_cable() -> None:
    need("unshare", "setpriv")
    need_network()
    if find_postgres() is None:
        lacking("postgresql")
    status, out, err = told(umask=0o077)  # sudo hands on its caller's, and some have this one
    assert (status, err) == (0, ""), out
    assert out.endswith("Everything was as it should be, and nothing is left running.\n")
    first, cut, _ = re.split(r"^3\. |^5\. ", out, flags=re.MULTILINE)
    for host in ("h1", "h2", "h3"):
        assert re.search(rf"^ +{host} +present .* worker", first, re.MULTILINE)
        assert re.search(rf" decky-{host} +{host} +deploy +succeeded ", first)
    assert re.search(r"its row says lost: host lost during operation", cut)
    assert re.search(r"^ +h2 +lost ", cut, re.MULTILINE)
    assert not re.search(r"^ +h[13] +lost ", cut, re.MULTILINE)
    assert out.count("host.returned: h2") == 1
    assert "the retry succeeded" in out
    assert left() == []
    assert not Path("/run/fleet").exists()


def test_what_is_missing_is_one_line() -> None:
    status, out, err = told(PATH="/nonexistent")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("fleet: ")
    if os.geteuid() == 0:
        assert "this machine lacks iproute2, iptables, util-linux" in err
    else:
        assert "needs root, for network namespaces: sudo ./run fleet" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="what root alone can start")
def test_it_is_gone_with_whoever_started_it() -> None:
    need("unshare", "setpriv")
    need_network()
    if find_postgres() is None:
        lacking("postgresql")
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("decnet-reaper hosts" in line for line in process.stdout)
        assert left()
        process.kill()
    while left():  # the kernel ends them one by one
        time.sleep(0.05)
