"""What `install --host` sets up beyond the units: whose host this is, where its servers are, its secrets.

Secrets go into /etc/credstore, which only root can read and from which systemd hands them to the units; all
else goes into config.toml. The reaper's units talk to their own machine only, until a drop-in names servers.
"""

import json
import re
import socket
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Self

from reaper.cli.admin import system_files as system
from reaper.cli.admin.system_files import InstallError
from repo.base import ID
from repo.factory import server_at
from repo.settings import CREDENTIALS, without_password
from worker.queue.dsn import Server, parse_dsn

_NAMES = ("host_uuid", "database", "presence_database", "redis")
_SECRETS = ("database_password", "redis")
_OPTIONS = {"host_uuid": "--host", "database": "--database", "redis": "--redis"}
_DROP_IN = """[Service]
# Where the store and the queue are; written by `decnet-reaper install --host`.
IPAddressAllow={addresses}
"""


@dataclass(frozen=True)
class HostSettings:
    """What a host is to know.

    Attributes:
        settings: by their names, without any secret.
        secrets: the same; those that were given.
        queue: how to reach it.
        databases: names or addresses of the machines that they are on.
    """

    settings: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    queue: Server = field(repr=False)
    databases: list[str]

    @classmethod
    def read(cls, options: Mapping[str, str | None], file: IO[str] | None) -> Self | None:
        """What the command line says, and what `hosts add` printed; None where neither says anything.

        Raises:
            InstallError, InvalidDSN, StoreUnusable: one line: what is missing, or can't be used.
        """
        given = {name: value for name, value in options.items() if value is not None}
        printed = {} if file is None else _printed(file)
        for name, value in given.items():
            if without_password(value) != value:
                raise InstallError(
                    f"{_OPTIONS[name]} has a password, which everybody on this machine can see: leave it"
                    " out, and give what `hosts add` printed with --secrets FILE, or - for stdin"
                )
            if name in printed and without_password(printed[name]) != value:
                raise InstallError(f"{_OPTIONS[name]} and {name} in the file of --secrets are not the same")
        if not (everything := given | printed):
            return None
        for name, option in _OPTIONS.items():
            if not everything.get(name):
                raise InstallError(f"a host needs {option}, or {name} in the file of --secrets")
        if not ID.fullmatch(name := everything["host_uuid"]):
            raise InstallError(f"{name!r} is no host id: letters, digits, and . _ - after the first")
        databases = _databases(everything)
        queue = parse_dsn(everything["redis"])
        settings = {name: without_password(everything[name]) for name in _NAMES if everything.get(name)}
        secrets = {name: everything[name] for name in _SECRETS if everything.get(name)}
        if secrets["redis"] == settings["redis"]:
            del secrets["redis"]
        return cls(settings, secrets, queue, databases)


def install_host(prefix: Path, host: HostSettings, *, dry_run: bool) -> list[str]:
    """Write what makes a machine a host of a fleet; twice in a row does no harm.

    Args:
        prefix: as for `install`.
        host: what it is to know.
        dry_run: say what would be done.

    Returns:
        What was done, a line each, and where a password belongs that nobody gave.

    Raises:
        InstallError: the machine is another host's, a server has no address, or a file is a link or can't be
            written.
    """
    config = prefix / system.CONFIG
    text = _configured(config, host.settings)
    for path in (config, *(_credential(prefix, name) for name in host.secrets)):
        if path.is_symlink():
            raise InstallError(f"{path} is a link, which would be kept as it is; put a file in its place")
    addresses = _addresses([*host.queue.machines, *host.databases])
    drop_in = _DROP_IN.format(addresses=" ".join(["localhost", *addresses]))
    mode = stat.S_IMODE(config.stat().st_mode) if config.exists() else 0o644
    done = [system.write(config, text, dry_run, mode)]
    done += [system.write(prefix / path, drop_in, dry_run) for path in system.SERVER_DROP_INS]
    for name, secret in host.secrets.items():
        done.append(system.write(_credential(prefix, name), secret, dry_run, 0o600))
    for name, what in _awaited(host).items():
        if not (path := _credential(prefix, name)).exists():
            done.append(f"next: write {what} to {path} (root, mode 0600)")
    if host.queue.sentinels:
        done.append(
            "next: Redis on other machines than its sentinels needs a drop-in: docs/how-to/several-hosts.md"
        )
    return done


def _credential(prefix: Path, name: str) -> Path:
    return prefix / f"{CREDENTIALS}{name}".lstrip("/")


def _printed(file: IO[str]) -> dict[str, str]:
    try:
        found = tomllib.loads(file.read())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        found = {}
    if not found or not all(isinstance(value, str) for value in found.values()):
        raise InstallError("the file of --secrets is not what `decnet-reaper hosts add` prints")
    if unknown := found.keys() - {*_NAMES, *_SECRETS}:
        raise InstallError(f"the file of --secrets has {min(unknown)}, which `hosts add` doesn't print")
    return found


def _databases(given: Mapping[str, str]) -> list[str]:
    machines = []
    for name in ("database", "presence_database"):
        if url := given.get(name):
            if not url.startswith("postgresql://"):
                raise InstallError(
                    f"{name}: hosts share a store in PostgreSQL: postgresql://USER@SERVER/NAME"
                )
            machines += server_at(url).machines
    return machines


def _configured(config: Path, settings: Mapping[str, str]) -> str:
    """The configuration that is there, or the one that is shipped, with these settings."""
    try:
        text = (config if config.exists() else system.shipped("systemd/config.toml")).read_text()
        before = tomllib.loads(text).get("host_uuid")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InstallError(f"the configuration {config} is not TOML: {error}") from None
    if before not in {None, "", settings["host_uuid"]}:
        raise InstallError(
            f"{config} says that this is host {before}, and a machine stays the host that it is; to change"
            " that, stop its daemons and set host_uuid there"
        )
    for name, value in settings.items():
        line = f"{name} = {json.dumps(value)}"
        there = re.search(rf"(?m)^{name} *=.*$", text) or re.search(rf"(?m)^#{name} *=.*$", text)
        if there is None:
            text = f"{text.rstrip()}\n{line}\n"
        else:
            text = text[: there.start()] + line + text[there.end() :]
    return text


def _addresses(machines: Iterable[str]) -> list[str]:
    """Of these machines; where one has a name, also those of who resolves it."""
    found: set[str] = set()
    for machine in machines:
        try:
            found.add(str(ip_address(machine)))
        except ValueError:
            found |= _resolved(machine) | _resolvers()
    return sorted(address for address in found if not ip_address(address).is_loopback)


def _resolved(name: str) -> set[str]:
    try:
        return {str(address[4][0]).partition("%")[0] for address in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        raise InstallError(f"the server {name} has no address that could be looked up") from None


def _resolvers() -> set[str]:
    try:
        known = Path("/etc/resolv.conf").read_text()
    except OSError:
        return set()
    return set(re.findall(r"(?m)^nameserver\s+([0-9a-fA-F.:]+)", known))


def _awaited(host: HostSettings) -> dict[str, str]:
    """The secrets that nobody gave and that are needed as far as one can tell: a user has a password."""
    awaited = {
        "database_password": ("database", "the password of the database's user"),
        "redis": ("redis", "the queue's DSN with its password"),
    }
    return {
        secret: what
        for secret, (name, what) in awaited.items()
        if secret not in host.secrets and "@" in host.settings[name].partition("?")[0]
    }
