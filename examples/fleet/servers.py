"""What the hosts share: one PostgreSQL and one Redis of the master's, each with a password."""

import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from worker.queue.server import find_server

ADMIN = "postgres"
_START_S = 60.0


def find_postgres() -> Path | None:
    """The directory of the newest server's programs, off PATH in Debian; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A PostgreSQL server, as its own user, since it refuses to run as root.

    Args:
        directory: where its own is made.
        address: that it listens on.

    Attributes:
        url: of its one database, for the administrator, without the password.
        password: the administrator's.
    """

    def __init__(self, directory: Path, address: str) -> None:
        self._own = directory / "postgresql"
        self.url = f"postgresql://{ADMIN}@{address}:5432/{ADMIN}"
        self.password = secrets.token_urlsafe()
        self._own.mkdir()
        password = self._own / "password"
        password.write_text(self.password)
        for path in (self._own, password):
            shutil.chown(path, ADMIN, ADMIN)
        self._run("initdb", "--username", ADMIN, "--pwfile", str(password), "--auth", "scram-sha-256")
        with (self._own / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        with (self._own / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses = '{address}'\nunix_socket_directories = ''\nport = 5432\n")

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._run(
            "pg_ctl", "start", "--wait", "--timeout", f"{_START_S:.0f}", "--log", str(self._own / "log")
        )

    def _run(self, program: str, *arguments: str) -> None:
        user = ("setpriv", "--reuid", ADMIN, "--regid", ADMIN, "--init-groups")
        programs = find_postgres()
        assert programs is not None  # noqa: S101
        command = [*user, str(programs / program), "--pgdata", str(self._own / "data"), *arguments]
        with (self._own / "made").open("ab") as said:
            subprocess.run(command, check=True, stdout=said, stderr=said, cwd=self._own)


class Redis:
    """A Redis or Valkey server that keeps its users, and nothing else.

    Args:
        directory: where its own is made.
        address: that it listens on.

    Attributes:
        url: for the administrator, with the password.
    """

    def __init__(self, directory: Path, address: str) -> None:
        self._own = directory / "redis"
        self._own.mkdir()
        password = secrets.token_urlsafe()
        users, config = self._own / "users.acl", self._own / "redis.conf"
        users.write_text(f"user default on >{password} ~* &* +@all\n")
        config.write_text(
            f'bind {address}\nport 6379\ndir {self._own}\naclfile {users}\nsave ""\nappendonly no\n'
        )
        self._address = address
        self._config = config
        self.url = f"redis://:{password}@{address}:6379/0"

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        server = find_server()
        assert server is not None  # noqa: S101
        with (self._own / "log").open("ab") as log:
            process = subprocess.Popen([server, str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis doesn't start: {(self._own / 'log').read_text()[-500:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            socket.create_connection((self._address, 6379), timeout=1).close()
        except OSError:
            return False
        return True
