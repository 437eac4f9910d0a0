"""A stand-in for `docker compose` of which a process survives: it leaves its session with the lock in hand.

Docker's own plugin can survive the client that a worker started.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from tests.support.fleet import Fleet

_SURVIVING = """
import os, sys, time
if "version" in sys.argv:
    print("2.40.3"); sys.exit()
if "up" not in sys.argv:
    sys.exit()
home = os.environ["HOME"]
document = open(sys.argv[sys.argv.index("--file") + 1]).read()

def alive(pid):
    try:
        return open("/proc/" + pid + "/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False

before = open(home + "/survivors").read().split() if os.path.exists(home + "/survivors") else []
with open(home + "/alive", "a") as counted:
    counted.write(str(sum(map(alive, before))) + chr(10))
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(home + "/survivors", "a") as note:
            note.write(str(os.getpid()) + chr(10))
        os.write(write, b"1")
        os.close(1); os.close(2); os.close(write)
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(read, 1)
{end}
"""


def surviving_compose(fleet: Fleet, end: str = "time.sleep(600)") -> Callable[[], Awaitable[int]]:
    """Make a fleet's runtime such a Compose.

    Args:
        fleet: its workers, from now on.
        end: what its `up` does once the survivor is on its way; by default it goes on and on.

    Returns:
        Waits for the newest survivor; its pid. The file `alive` has a line for each `up`: how many
        survivors of earlier ones were alive when it began.
    """
    stand_in, note = fleet.root / "compose.py", fleet.root / "survivors"
    stand_in.write_text(_SURVIVING.format(end=end))
    fleet.environment["HOME"] = str(fleet.root)
    fleet.set(runtime="compose", compose_command=f"{sys.executable} {stand_in}")

    async def survivor() -> int:
        while not note.exists() or not note.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
        return int(note.read_text().split()[-1])

    return survivor
