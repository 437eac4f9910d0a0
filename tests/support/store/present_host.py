"""A daemon that does nothing but hold its host's session; prints `present`, or why it is not, a line each.

python -m tests.support.store.present_host URL HOST [SECONDS]

With SECONDS, the server's answer to a statement comes so much later: a cable that is cut meanwhile loses it.
"""

import asyncio
import sys

from repo.postgres.presence import Presence
from repo.postgres.server import Server


async def main(url: str, host: str, seconds: str = "") -> None:
    presence = Presence(Server(url), host)
    if not seconds:
        await presence.keep(lambda reason: print(reason or "present", flush=True))  # noqa: T201
    await presence.open()
    print("present", flush=True)  # noqa: T201
    assert presence._connection is not None
    await presence._connection.execute("SELECT pg_sleep(%s)", (float(seconds),))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
