"""One master of the storm: submits and cancels until it is killed, and notes what was acknowledged to it.

Called as `python -m tests.storm.submitter NUMBER SEED NOTES-DIRECTORY DECKY[@HOST]...`, settings in its
environment.
"""

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from repo.errors import LifecycleClosed, StoreUnavailable
from worker.client import LifecycleClient
from worker.settings import WorkerSettings, load

_ENOUGH = 40  # open rows
_HOW = ["well", "well", "well", "fails", "stubborn", "leaves"]


async def _submit(number: str, chance: random.Random, notes: Path, deckies: list[str]) -> None:
    accepted: list[str] = []
    async with LifecycleClient(load(WorkerSettings)) as client:
        for count in range(10**6):
            wish = f"wish-{number}-{os.getpid()}-{count}"
            decky, _, host = chance.choice(deckies).partition("@")
            environment = {"DECKY": decky, "WISH": wish, "HOW": chance.choice(_HOW)}
            environment["SECONDS"] = f"{chance.choice([0, 0.05, 0.3, 1.0]):g}"
            document = {"services": {decky: {"image": "none", "environment": environment}}}
            try:
                while len(await client.repository.list_open_lifecycles()) > _ENOUGH:
                    await asyncio.sleep(0.5)
                accepted.append(await client.deploy(decky, document, host_uuid=host or None))
                _note(notes, {"wish": wish, "id": accepted[-1], "decky": decky})
                if chance.random() < 0.15:
                    await client.cancel(chance.choice(accepted[-5:]))
            except (LifecycleClosed, StoreUnavailable):
                pass
            await asyncio.sleep(chance.uniform(0.1, 0.7))


def _note(notes: Path, line: dict[str, Any]) -> None:
    fd = os.open(notes / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (json.dumps(line) + "\n").encode())
    os.close(fd)


if __name__ == "__main__":
    asyncio.run(_submit(sys.argv[1], random.Random(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))  # noqa: S311
