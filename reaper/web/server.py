"""The daemon behind the page: where it listens, what it opens, how it starts and stops."""

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette

from reaper.settings import ReaperSettings
from reaper.web.actions import Actions, tokens_of
from reaper.web.app import build
from reaper.web.watcher import Watcher
from repo.errors import DecnetReaperError, StoreError
from repo.factory import repository_of
from worker.client import LifecycleClient
from worker.logging.emit import emit
from worker.queue import Queue
from worker.service.reload import reread
from worker.service.skeleton import Service

_GRACE_S = 2
"""Seconds that streams are given to end; browsers ask again by themselves."""
_LAST_PORT = 65535
_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


class ListenError(DecnetReaperError):
    """Where the page was to listen is no place to listen at; says what would do."""


class ListenUnavailable(DecnetReaperError):
    """Where the page was to listen, and why it can't now: an address may come, a port may become free."""

    exit_status = 3


class Listen(NamedTuple):
    """Where to listen.

    Attributes:
        host, port: an address; port 0 takes one that is free.
        path: of a unix socket, in their place.
    """

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Listen":
        """Read ADDRESS:PORT, [ADDRESS]:PORT or unix:PATH.

        Raises:
            ListenError: it is none of them.
        """
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(path=Path(text.removeprefix("unix:")))
        host, _, port = text.rpartition(":")
        with contextlib.suppress(ValueError):
            if 0 <= int(port) <= _LAST_PORT:
                return cls(str(ipaddress.ip_address(host.strip("[]"))), int(port))
        raise ListenError(f"--listen {text!r}: expected ADDRESS:PORT, such as 127.0.0.1:8090, or unix:PATH")

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach it."""
        return self.path is None and not ipaddress.ip_address(self.host).is_loopback

    @contextlib.contextmanager
    def opened(self) -> Iterator[socket.socket]:
        """The socket; a unix socket is its group's to use, and gone afterwards.

        Raises:
            ListenUnavailable: the system says no, or another process listens on the unix socket.
        """
        try:
            listening = self._open()
            ours = self._file()
        except OSError as error:
            where, reason = self.path or f"{self.host}:{self.port}", error.strerror or error
            raise ListenUnavailable(f"can't listen on {where}: {reason}") from None
        with listening:
            yield listening
        if self.path is not None and self._file() == ours:
            self.path.unlink(missing_ok=True)

    def _file(self) -> tuple[int, int] | None:
        """What tells the file of a unix socket from another one at its path."""
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                found = self.path.stat()
                return found.st_dev, found.st_ino
        return None

    def _open(self) -> socket.socket:
        if self.path is None:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, self.port), family=family)
        if self.path.is_socket():
            self._remove_dead(self.path)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.path))
        self.path.chmod(0o660)
        listening.listen()
        return listening

    @staticmethod
    def _remove_dead(path: Path) -> None:
        """Remove the socket of one that was killed."""
        with socket.socket(socket.AF_UNIX) as other:
            other.setblocking(False)
            try:
                other.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                return
        raise ListenUnavailable(
            f"can't listen on {path}: another process does; end that one, or name another path"
        )


class _Server(uvicorn.Server):
    """uvicorn, whose signals and log are the daemon's own affair."""

    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            limit_concurrency=512,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_web(settings: ReaperSettings, *, listen: Listen, names: Sequence[str], act: bool) -> None:
    """Serve the page until the process is told to stop.

    Args:
        settings: where store and queue are.
        listen: where.
        names: further names under which a proxy serves it.
        act: whether it may cancel, retry and tear down.

    Raises:
        StoreUnavailable, SettingsError, ListenUnavailable: at the start.
    """
    tokens = tokens_of(settings.web_tokens) if act else []
    async with contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(listen.opened())
        repository = await stack.enter_async_context(repository_of(settings))
        client = await stack.enter_async_context(LifecycleClient(settings)) if act else None
        queue = Queue(settings.redis)
        stack.push_async_callback(queue.close)
        watcher = Watcher(repository, queue)
        await watcher.look()
        with contextlib.suppress(StoreError):
            await watcher.figures()  # a whole day: later it is an hour or two
        app = build(
            watcher,
            operation_timeout=settings.operation_timeout,
            names={*_LOOPBACK_NAMES, listen.host, *(name.lower() for name in names)} - {""},
            actions=None if client is None else Actions(client, tokens),
        )
        server = _Server(app)
        where = _name(listening)
        async with Service(lambda: _reload(settings)) as service:
            emit(
                "web.started",
                pid=os.getpid(),
                listen=where,
                actions=act,
                database=settings.database_name,
                redis=queue.name,
            )
            if listen.is_exposed:
                emit("web.exposed", listen=where)
            service.supervise("store", watcher.watch_store)
            service.supervise("queue", watcher.watch_queue)
            serving = asyncio.create_task(server.serve([listening]))
            serving.add_done_callback(lambda _: service.stop.set())
            await service.run(f"listens on {where}")
            watcher.stop()
            server.should_exit = True
            await serving
    emit("web.stopped", pid=os.getpid())


def _name(listening: socket.socket) -> str:
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reload(settings: ReaperSettings) -> str:
    reread(settings)
    return "settings read again; all of them need a restart here"
