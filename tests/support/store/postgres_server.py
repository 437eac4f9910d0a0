"""A real PostgreSQL server of a test session's own, which a test may stop, kill, restart and fail over.

Debian keeps the server's programs off PATH, and the server refuses to run as root: a root session starts it
as `postgres`. It listens on a unix socket, where everybody is trusted, and on TCP, where a password is asked.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg

from tests.support.needs import lacking
from tests.support.network.ports import free_port

START_S = 60.0
ADMIN = "postgres"
ADMIN_PASSWORD = "the administrator's"  # noqa: S105 - of a server that lives as long as the tests do

_FAST = {
    "fsync": "off",  # a killed server loses nothing by it, a machine without power would
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "timezone": "America/St_Johns",  # a store that is right by accident of UTC is not right
}


def find_postgres() -> Path | None:
    """The directory of the newest server's programs; None where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]), reverse=True
    )
    if found:
        return found[0].parent
    on_path = shutil.which("postgres")
    return None if on_path is None else Path(on_path).parent


class PostgresServer:
    """One server, not yet started; use as a context manager, or call `start` and `remove`.

    Args:
        settings: of postgresql.conf, over those that make tests fast.
        listen: address that it listens on beside its unix socket.
        standby_of: start as a streaming standby of this server, from a copy of it.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        listen: str = "127.0.0.1",
        standby_of: "PostgresServer | None" = None,
    ) -> None:
        self._programs = find_postgres() or lacking("postgresql")
        self.directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.host = listen
        self.port = free_port(listen)
        self._data = self.directory / "data"
        self._settings = {
            **_FAST,
            "port": str(self.port),
            "listen_addresses": listen,
            "unix_socket_directories": str(self.directory),
        }
        self._settings |= settings or {}
        self._primary = standby_of
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = count(1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.directory / "log").read_text(errors="replace")

    def url(self, database: str = "postgres", user: str = ADMIN) -> str:
        """Over the unix socket, where no password is asked."""
        return f"postgresql://{user}@/{database}?host={self.directory}&port={self.port}"

    def tcp_url(
        self, database: str = "postgres", user: str = ADMIN, password: str = ADMIN_PASSWORD, at: str = ""
    ) -> str:
        """Over TCP, at one of its addresses, where a password is asked."""
        host = at or ("127.0.0.1" if self.host == "*" else self.host)
        return f"postgresql://{user}:{quote(password)}@{host}:{self.port}/{database}"

    def start(self) -> None:
        """Start, and return when it answers."""
        if not self._data.exists():
            self._make()
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # setpriv: a server whose test session was killed ends with it
                [
                    *("setpriv", "--pdeathsig", "QUIT", *server_user()),
                    *(str(self._programs / "postgres"), "-D", str(self._data), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        self._wait_ready()

    def stop(self, *, immediate: bool = False) -> None:
        """A clean stop that ends all sessions, or an immediate one; returns when it is over."""
        self._signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._wait()

    def restart(self) -> None:
        """A clean stop and a start."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """kill -9 of every process of it, as when the machine goes."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # or its children could see that it is gone, and say so
        family = [self._process.pid, *_children(self._process.pid)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait()
        while any(Path(f"/proc/{pid}").exists() for pid in family):
            time.sleep(0.01)

    def freeze(self) -> None:
        """Stop every process of it (SIGSTOP): it takes connections and answers none."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on from where it was frozen."""
        self._signal_all(signal.SIGCONT)

    def standby(self, settings: Mapping[str, str] | None = None) -> "PostgresServer":
        """A streaming standby of this one, not yet started."""
        return PostgresServer(settings, listen=self.host, standby_of=self)

    def set(self, settings: Mapping[str, str]) -> None:
        """Change settings that need no restart."""
        for name, value in settings.items():
            self.psql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.psql("SELECT pg_reload_conf()")

    def own(self, directory: Path) -> None:
        """Give a directory to the server's user."""
        if os.geteuid() == 0:
            shutil.chown(directory, ADMIN, ADMIN)

    def promote(self) -> None:
        """Make a standby the primary; returns when it takes writes."""
        self.run("pg_ctl", "promote", "--wait", "--pgdata", str(self._data))

    def database(self, template: str = "template1") -> str:
        """A new database, empty unless it is a copy; its name."""
        name = f"store_{next(self._databases)}"
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def psql(self, sql: str, database: str = "postgres", user: str = ADMIN) -> str:
        """What psql prints for these statements, a row a line and columns divided by `|`.

        Raises:
            subprocess.CalledProcessError: with the server's message as its `stderr`.
        """
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        return subprocess.run(
            [*command, "--set", "ON_ERROR_STOP=1", "--dbname", self.url(database, user), "--file", "-"],
            input=sql,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    @contextmanager
    def connection(self, database: str = "postgres", user: str = ADMIN) -> Iterator[psycopg.Connection]:
        """A plain connection, to look into the server and to stand in its way."""
        with psycopg.connect(self.url(database, user), autocommit=True) as connection:
            yield connection

    def run(self, program: str, *arguments: str) -> str:
        """One of the server's own programs, as the server's user; what it prints."""
        return subprocess.run(
            ["setpriv", *server_user(), str(self._programs / program), *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=self.directory,
        ).stdout

    def remove(self) -> None:
        """kill -9, and nothing of it is left."""
        with suppress(ProcessLookupError):
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _make(self) -> None:
        self.own(self.directory)
        self.directory.chmod(0o755)
        if self._primary is not None:
            source = ["--host", str(self._primary.directory), "--port", str(self._primary.port)]
            copy = ["--pgdata", str(self._data), "--write-recovery-conf", "--checkpoint", "fast", "--no-sync"]
            self.run("pg_basebackup", *source, "--username", ADMIN, *copy)
            return
        password = self.directory / "password"
        password.write_text(ADMIN_PASSWORD)
        self.run(
            *("initdb", "--pgdata", str(self._data), "--username", ADMIN, "--pwfile", str(password)),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256", "--no-sync", "--encoding", "UTF8"),
            *("--locale", "C.UTF-8"),
        )
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        ready = [str(self._programs / "pg_isready"), "--quiet", "--host", str(self.directory)]
        while subprocess.run([*ready, "--port", str(self.port)], check=False).returncode != 0:
            assert self._process is not None
            assert self._process.poll() is None, f"PostgreSQL ended: {self.log[-2000:]}"
            assert time.monotonic() < deadline, f"PostgreSQL doesn't answer: {self.log[-2000:]}"
            time.sleep(0.02)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(START_S)
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *_children(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _children(pid: int) -> list[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in found.split()]


def server_user() -> list[str]:
    """What makes setpriv start a program as the server's user, where the tests run as root."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(ADMIN)
    return ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
