"""A cable with a fault: passes bytes on until it swallows the answer to something, and is cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """What stands between a client and its server.

    Attributes:
        port: where it listens, on 127.0.0.1.
        swallowed: how many answers it kept to itself.
        down: whether it takes no connection.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._needle: bytes | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.swallowed = 0
        self.down = False

    def swallow_answer_to(self, needle: bytes) -> None:
        """The next request with these bytes reaches the server; its answer is lost, with the connection."""
        self._needle = needle

    def cut(self) -> None:
        """Cut every connection that is there now."""
        for writer in self._connections:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.close()
            return
        try:
            there, back = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.close()
            return
        self._connections |= {writer, back}
        lose = asyncio.Event()
        tasks = [
            asyncio.create_task(self._pass(reader, back, lose)),
            asyncio.create_task(self._answer(there, writer, lose)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in (writer, back):
            end.close()
            self._connections.discard(end)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lose: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if self._needle is not None and self._needle in data:
                self._needle = None
                lose.set()
            writer.write(data)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lose: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if lose.is_set():
                self.swallowed += 1
                return
            writer.write(data)


@asynccontextmanager
async def proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy before a server."""
    standing = Proxy(host, port)
    server = await asyncio.start_server(standing.serve, "127.0.0.1")
    standing.port = server.sockets[0].getsockname()[1]
    try:
        yield standing
    finally:
        server.close()
        standing.cut()
