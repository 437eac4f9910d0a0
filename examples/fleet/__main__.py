"""Three hosts on one machine, and a cable that is cut: `sudo ./run fleet`.

All of it happens in namespaces of its own for network, mounts and processes. They and all that is in them are
gone when this ends, however it ends.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from examples.fleet.servers import ADMIN, find_postgres
from worker.queue.server import find_server

_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

# A /run of its own holds the names of the namespaces and all data. The shell is the first process there: it
# reaps what nobody waits for.
_INSIDE = 'mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/netns && "$@"; exit $?'


def lacking() -> str:
    """What this machine lacks, and what to do about it; empty if nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces: sudo ./run fleet"
    needed = {
        "iproute2": shutil.which("ip"),
        "iptables": shutil.which("iptables"),
        "util-linux": shutil.which("unshare") and shutil.which("setpriv"),
        "postgresql": find_postgres() and _has_user(ADMIN),
        "redis-server": find_server(),
    }
    if missing := [package for package, found in needed.items() if not found]:
        return f"this machine lacks {', '.join(missing)}: apt-get install {' '.join(missing)}"
    if importlib.util.find_spec("psycopg") is None:
        return "this Python lacks psycopg: start it as sudo ./run fleet"
    tried = subprocess.run(
        [*_NAMESPACES, "iptables", "--wait", "--append", "INPUT", "--jump", "DROP"],
        check=False,
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        return f"no network namespace with iptables can be made here: {' '.join(tried.stderr.split())}"
    return ""


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def main() -> None:
    """Become the story, in namespaces of its own."""
    if why := lacking():
        sys.exit(f"fleet: {why}")
    os.umask(0o022)  # sudo hands on the caller's, and the servers' users must enter what is made
    os.chdir(Path(__file__).parents[2])
    story = [sys.executable, "-m", "examples.fleet.story", "/run/fleet"]
    os.execvp(_NAMESPACES[0], [*_NAMESPACES, "sh", "-c", _INSIDE, "sh", *story])  # noqa: S606


if __name__ == "__main__":
    main()
