"""Redis servers on loopback ports: with TLS, in a cluster, as master and replica under three sentinels."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.support.needs import lacking
from tests.support.network.certificates import Certificates
from tests.support.network.ports import free_port

HOST = "127.0.0.1"


class RedisProgram:
    """One redis-server or redis-sentinel, with a directory and a port of its own. It keeps nothing on disk.

    Args:
        directory: where its own is made.
        options: more lines for its configuration.
        tls: it speaks TLS only, and wants a client's certificate.
        password: which it wants of everybody.
        sentinel: it is one.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        tls: Certificates | None = None,
        password: str | None = None,
        sentinel: bool = False,
    ) -> None:
        self.port = free_port()
        self._tls, self._password = tls, password
        own = directory / str(self.port)
        own.mkdir()
        program = "redis-sentinel" if sentinel else "redis-server"
        path = shutil.which(program) or lacking(program)
        lines = [f"bind {HOST}", f"dir {own}", 'logfile ""', "loglevel warning", *options]
        lines += [] if sentinel else ['save ""', "appendonly no"]
        lines += [f"requirepass {password}"] if password else []
        lines += [f"port {self.port}"] if tls is None else self._tls_lines(tls)
        (own / "redis.conf").write_text("\n".join([*lines, ""]))
        self._command = [path, str(own / "redis.conf")]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _tls_lines(self, tls: Certificates) -> list[str]:
        files = [f"tls-cert-file {tls('server.crt')}", f"tls-key-file {tls('server.key')}"]
        authority = [f"tls-ca-cert-file {tls('ca.crt')}", "tls-replication yes"]
        return ["port 0", f"tls-port {self.port}", *files, *authority]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Any]:
        if self._tls:
            files = {"ssl_certfile": self._tls("client.crt"), "ssl_keyfile": self._tls("client.key")}
            options |= {"ssl": True, "ssl_ca_certs": self._tls("ca.crt"), **files}
        options = {"password": self._password, **options}
        client = Redis(host=HOST, port=self.port, decode_responses=True, **options)
        try:
            yield client
        finally:
            await client.aclose()

    async def ready(self) -> None:
        """Return when it answers."""
        assert self._process
        async with self.client() as client:
            while True:
                assert self._process.poll() is None, "it ended at once: see what it printed"
                with contextlib.suppress(RedisError, OSError):
                    if await client.ping():
                        return
                await asyncio.sleep(0.02)


class SentinelSetup:
    """Three sentinels that watch a master and its replica."""

    NAME = "decnet"

    def __init__(
        self,
        directory: Path,
        tls: Certificates | None = None,
        password: str | None = None,
        sentinel_password: str | None = None,
    ) -> None:
        options = ["repl-diskless-sync-delay 0", *([f"masterauth {password}"] if password else [])]
        self.master = RedisProgram(directory, *options, tls=tls, password=password)
        options.append(f"replicaof {HOST} {self.master.port}")
        self.replica = RedisProgram(directory, *options, tls=tls, password=password)
        watched = [
            f"sentinel monitor {self.NAME} {HOST} {self.master.port} 2",
            f"sentinel down-after-milliseconds {self.NAME} 1000",
            f"sentinel failover-timeout {self.NAME} 5000",
        ]
        watched += [f"sentinel auth-pass {self.NAME} {password}"] if password else []
        watched += [f"sentinel sentinel-pass {sentinel_password}"] if sentinel_password else []
        self.sentinels = [
            RedisProgram(directory, *watched, tls=tls, password=sentinel_password, sentinel=True)
            for _ in range(3)
        ]

    @property
    def addresses(self) -> str:
        return ",".join(f"{HOST}:{each.port}" for each in self.sentinels)

    @property
    def dsn(self) -> str:
        return f"redis+sentinel://{self.addresses}/{self.NAME}"

    async def ready(self) -> None:
        """Return when the sentinels know each other and the replica, and that has what its master has."""
        for program in (self.master, self.replica, *self.sentinels):
            await program.ready()
        for sentinel in self.sentinels:
            async with sentinel.client() as client:
                while True:
                    state = await client.sentinel_master(self.NAME)
                    if (state["num-other-sentinels"], state["num-slaves"]) == (2, 1):
                        break
                    await asyncio.sleep(0.05)
        async with self.replica.client() as client:
            while (await client.info("replication")).get("master_link_status") != "up":
                await asyncio.sleep(0.05)

    async def promoted(self, program: RedisProgram) -> None:
        """Return when all sentinels call this one the master."""
        for sentinel in self.sentinels:
            async with sentinel.client() as client:
                while int((await client.sentinel_get_master_addr_by_name(self.NAME))[1]) != program.port:
                    await asyncio.sleep(0.05)

    def kill(self) -> None:
        for program in (*self.sentinels, self.replica, self.master):
            with contextlib.suppress(AssertionError):
                program.signal(signal.SIGCONT)
            program.kill()
