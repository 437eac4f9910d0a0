"""A real PgBouncer before a test's server."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal, Self

import psycopg

from tests.support.needs import need
from tests.support.network.ports import free_port
from tests.support.store.postgres_server import ADMIN, PostgresServer, server_user


class PgBouncer:
    """One pooler; use as a context manager.

    Args:
        server: what it stands before.
        mode: `transaction` hands each transaction to whatever session is free, `session` keeps to one.
    """

    def __init__(self, server: PostgresServer, mode: Literal["transaction", "session"]) -> None:
        need("pgbouncer")
        self._directory = Path(tempfile.mkdtemp(prefix="pgb-", dir="/tmp"))
        self.port = free_port()
        users = self._directory / "users"
        users.write_text(f'"{ADMIN}" ""\n')
        self._config = self._directory / "config"
        self._config.write_text(
            f"[databases]\n* = host={server.directory} port={server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\npool_mode = {mode}\ndefault_pool_size = 4\nauth_file = {users}\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        for path in (self._directory, users, self._config):
            server.own(path)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *server_user(), "pgbouncer", "--quiet", str(self._config)]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory)

    def url(self, database: str) -> str:
        """A database of the server, through this pooler; returns when it answers."""
        url = f"postgresql://{ADMIN}@127.0.0.1:{self.port}/{database}"
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(url).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PgBouncer doesn't answer"
                time.sleep(0.02)
            else:
                return url
