"""`decnet-reaper install`: the systemd units with what they need, and the man pages.

What is installed belongs to us and is replaced by the next install; changes belong into drop-ins
(`systemctl edit`) and into config.toml, which is never overwritten.
"""

import os
import stat
import sys
import sysconfig
from pathlib import Path
from typing import IO

import click

from reaper.cli.admin import system_files as system
from reaper.cli.admin.install_host import HostSettings, install_host
from reaper.cli.admin.system_files import InstallError
from reaper.cli.options import dry_run_option, json_option, prefix_option

# What ProtectHome= and PrivateTmp= hide from the units.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108


@click.command()
@click.option("--host", metavar="UUID", help="Set up a host of a fleet: which.")
@click.option("--database", metavar="URL", help="Of a host: the fleet's store, without a password.")
@click.option("--redis", metavar="DSN", help="Of a host: the fleet's queue, without a password.")
@click.option(
    "--secrets",
    type=click.File(),
    metavar="FILE",
    help="Of a host: what `hosts add` printed, passwords too; - for stdin.",
)
@prefix_option("written")
@dry_run_option
@json_option
def command(
    host: str | None,
    database: str | None,
    redis: str | None,
    secrets: IO[str] | None,
    prefix: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Install systemd units, man pages, user.

    Twice in a row does no harm. A host's settings go into config.toml, its secrets into /etc/credstore, and a
    drop-in lets the reaper's units reach the servers.

    \b
    Examples:
      decnet-reaper install --dry-run
      sudo decnet-reaper install
      ssh master decnet-reaper hosts add h2 | sudo decnet-reaper install --secrets -
      decnet-reaper install --prefix build/image
    """
    options = {"host_uuid": host, "database": database, "redis": redis}
    whose = HostSettings.read(options, secrets)
    system.print_done(install(prefix, dry_run=dry_run, host=whose), as_json=as_json)


def install(
    prefix: Path, *, dry_run: bool, command: Path | None = None, host: HostSettings | None = None
) -> list[str]:
    """Install units, sysusers.d, tmpfiles.d, man pages and the configuration; twice in a row does no harm.

    Args:
        prefix: `/`, or the root of an image, where files are written and nothing is run.
        dry_run: say what would be done.
        command: what the units run (default: the `decnet-reaper` beside this interpreter).
        host: which host of a fleet this is, and where its servers are.

    Returns:
        What was done, a line each, and what to do next.

    Raises:
        InstallError: not root, the units could not see the command, or a step failed.
    """
    os.umask(0o022)  # sudo hands on the caller's, and the service's user must read what is made
    command = command or _own_command()
    _check_command(command)
    system.check_root(prefix, dry_run)
    done = [system.write(prefix / target, text, dry_run) for target, text in system.files(command).items()]
    pages = [system.write(prefix / page, text, dry_run) for page, text in system.manual_pages().items()]
    done += system.in_short(pages, prefix)
    config = prefix / system.CONFIG
    if host is not None:
        done += install_host(prefix, host, dry_run=dry_run)
    elif config.exists():
        done.append(f"kept {config}")
    else:
        done.append(system.write(config, system.shipped("systemd/config.toml").read_text(), dry_run))
    if system.live(prefix):
        done.append(system.run(dry_run, "systemd-sysusers", "/etc/sysusers.d/decnet-reaper.conf"))
        done.append(system.run(dry_run, "systemd-tmpfiles", "--create", "/etc/tmpfiles.d/decnet-reaper.conf"))
        done += system.mend_owners(dry_run)
    if system.booted(prefix):
        done.append(system.run(dry_run, "systemctl", "daemon-reload"))
        done.append("next: systemctl enable --now decnet-reaper.target")
        done.append("next: usermod -aG decnet-reaper NAME, for each user who is to submit and read")
    return done


def _own_command() -> Path:
    _check_visible(Path(sys.executable).resolve())
    return Path(sysconfig.get_path("scripts")) / "decnet-reaper"


def _check_command(command: Path) -> None:
    if not os.access(command, os.X_OK):
        raise InstallError(f"there is no command {command}; install the package with pip first")
    if any(character.isspace() or character in "\"'\\$" for character in str(command)):
        raise InstallError(f"the path {command} can't stand in a unit; choose one without blanks and quotes")
    _check_visible(command)


def _check_visible(path: Path) -> None:
    if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
        raise InstallError(
            f"{path} can't be seen by the units, which have no access to home and temporary directories;"
            " install into a virtual environment such as /opt/decnet-reaper, with a Python that all can read"
        )
    closed = next((each for each in (path, *path.parents) if not each.stat().st_mode & stat.S_IXOTH), None)
    if closed is not None:
        raise InstallError(
            f"{path} can't be run by the units, since {closed} is closed to other users; with umask 022,"
            " install into a virtual environment such as /opt/decnet-reaper, with a Python that all can read"
        )
