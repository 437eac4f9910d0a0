"""Receives what workers and systemd report to the reaper at once; see `worker.liveness.signals`."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from worker.liveness.owner import Owner
from worker.liveness.signals import SOCKET, SWEPT, short
from worker.service.systemd import death_reason


class Listener(asyncio.DatagramProtocol):
    """Passes each signal on.

    Args:
        watch: is given a worker whose death is to be noticed.
        close: closes the rows of a run that ended; is given the run and the reason.
    """

    def __init__(self, watch: Callable[[Owner], None], close: Callable[[str, str], Awaitable[bool]]) -> None:
        self._watch = watch
        self._close = close
        self._closing: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        match data.decode(errors="replace").split(" "):
            case ["at-work", name] if (owner := Owner.parse(name)) is not None:
                self._watch(owner)
            case ["ended", run, result, status]:
                reason = death_reason({"SERVICE_RESULT": result, "EXIT_STATUS": status})
                task = asyncio.create_task(self._close_and_answer(run, reason, addr))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def _close_and_answer(self, run: str, reason: str, addr: Any) -> None:
        if await self._close(run, reason):
            self._transport.sendto(SWEPT, addr)


@asynccontextmanager
async def listening(runtime_dir: Path, listener: Listener) -> AsyncIterator[None]:
    """Let the listener hear; of several reapers the last one that began gets the signals.

    Raises:
        OSError: the socket can't be made in this directory.
    """
    with _bound(runtime_dir) as channel:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: listener, sock=channel
        )
        try:
            yield
        finally:
            transport.close()


def _bound(runtime_dir: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.setblocking(False)
    with short(runtime_dir) as place:
        new = Path(place, f"{SOCKET}.{os.getpid()}")
        new.unlink(missing_ok=True)
        channel.bind(str(new))
        new.chmod(0o600)  # nobody can have come in between: the directory is this user's only
        new.rename(Path(place, SOCKET))
    return channel
