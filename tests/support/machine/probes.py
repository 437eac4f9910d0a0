"""Programs that tests run on a machine with systemd, by `python -c`."""

MANY_OPERATIONS = """
# Operations that end at once, queued while no worker is there, then done as fast as one can.
import asyncio, json, subprocess
from datetime import UTC, datetime
from worker.client import LifecycleClient
from worker.queue import Delivery, Queue

async def main():
    async with LifecycleClient() as client:
        # A mutate of what was never deployed, which the client itself would have refused.
        row = {"operation": "mutate", "payload": {"services": ["ssh"]}}
        row |= {"deliveries": 1, "enqueued_at": datetime.now(UTC)}
        create = client.repository.create_lifecycle
        rows = [row | {"decky_name": f"noop-{number}"} for number in range(2_000)]
        ids = await asyncio.gather(*map(create, rows))
        queue = Queue(client.settings.redis)
        await queue.enqueue([*map(Delivery.latest, await client.repository.get_lifecycle_by_ids(ids))])
        await queue.close()
        await asyncio.to_thread(subprocess.run, ["systemctl", "start", "decnet-worker@1"], check=True)
        for lifecycle_id in ids:
            await client.wait(lifecycle_id, timeout=60)
        rows = await client.repository.get_lifecycle_by_ids(ids)
        print(json.dumps({row["id"]: row["status"] for row in rows}))

asyncio.run(main())
"""

SANDBOX = """
# What a service may do, by what it tries; the answers go where it is allowed to write.
import json, os, pathlib, socket

STATE = pathlib.Path("/var/lib/decnet-reaper")

def write(directory):
    (pathlib.Path(directory) / "probe").write_text("")

def send(address):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", (address, 9))

PLACES = ("/etc", "/usr", "/var", "/home", "/root", "/run", STATE)
TRIES = {
    **{f"write {place}": (write, place) for place in PLACES},
    "sniff": (socket.socket, socket.AF_PACKET, socket.SOCK_RAW),
    "become root": (os.setuid, 0),
    "leave for a namespace": (os.open, "/proc/1/ns/mnt", os.O_RDONLY),
    "change root": (os.chroot, "/"),
    "send here": (send, "127.0.0.1"),
    "send elsewhere": (send, "192.0.2.1"),
}
said = {}
for name, (attempt, *arguments) in TRIES.items():
    try:
        attempt(*arguments)
        said[name] = "done"
    except OSError as error:
        said[name] = type(error).__name__ if type(error) is not OSError else os.strerror(error.errno)
(STATE / "probe.json").write_text(json.dumps(said))
"""

OUT_OF_MEMORY = """
# What systemd-oomd does to a unit: it marks the control group, then kills all that is in it.
import os, pathlib, sys
group = pathlib.Path("/sys/fs/cgroup" + sys.argv[1])
os.setxattr(group, "user.oomd_ooms", b"1")
(group / "cgroup.kill").write_text("1")
"""
