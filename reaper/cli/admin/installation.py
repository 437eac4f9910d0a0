"""Installs the systemd units with what they need, and the man pages, and removes them again.

What is installed belongs to us and is replaced by the next install; changes belong into drop-ins
(`systemctl edit`) and into config.toml, which is never overwritten. Data, configuration and user stay on
uninstall.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from reaper.cli.admin.manual import pages

_COMMAND = "/usr/bin/decnet-reaper"
"""What the units as shipped call; replaced by where the command really is."""

# What ProtectHome= and PrivateTmp= hide from the units.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108

_UNITS = Path("etc/systemd/system")
_MANUAL = Path("usr/local/share/man/man1")
_CONFIG = Path("etc/decnet-reaper/config.toml")
_UNIT_NAMES = (
    "decnet-reaper.target",
    "decnet-reaper.service",
    "decnet-reaper-sweep.timer",
    "decnet-reaper-sweep.service",
    "decnet-worker@.service",
)


class InstallError(Exception):
    """It can't be installed or removed like this; one line says why and what to do."""


def install(prefix: Path, *, dry_run: bool, command: Path | None = None) -> list[str]:
    """Install units, sysusers.d, tmpfiles.d, man pages and the configuration; twice in a row does no harm.

    Args:
        prefix: `/`, or the root of an image, where files are written and nothing is run.
        dry_run: say what would be done.
        command: what the units run (default: the `decnet-reaper` beside this interpreter).

    Returns:
        What was done, a line each, and what to do next.

    Raises:
        InstallError: not root, the units could not see the command, or a step failed.
    """
    command = command or _own_command()
    _check_command(command)
    _check_root(prefix, dry_run)
    done = [_write(prefix / target, text, dry_run) for target, text in _files(command).items()]
    done += _in_short(
        [_write(prefix / _MANUAL / name, text, dry_run) for name, text in pages().items()], prefix
    )
    config = prefix / _CONFIG
    if config.exists():
        done.append(f"kept {config}")
    else:
        done.append(_write(config, (_shipped() / "config.toml").read_text(), dry_run))
    if _live(prefix):
        done.append(_run(dry_run, "systemd-sysusers", "/etc/sysusers.d/decnet-reaper.conf"))
        done.append(_run(dry_run, "systemd-tmpfiles", "--create", "/etc/tmpfiles.d/decnet-reaper.conf"))
    if _booted(prefix):
        done.append(_run(dry_run, "systemctl", "daemon-reload"))
        done.append("next: systemctl enable --now decnet-reaper.target")
    return done


def uninstall(prefix: Path, *, dry_run: bool) -> list[str]:
    """Stop and disable the units and remove what `install` wrote; data, configuration and user stay.

    Args:
        prefix: as it was installed.
        dry_run: say what would be done.

    Returns:
        What was done, a line each.

    Raises:
        InstallError: not root, or a step failed.
    """
    _check_root(prefix, dry_run)
    done = []
    written = [prefix / target for target in _files(Path(_COMMAND)) if (prefix / target).exists()]
    if _booted(prefix) and any(path.parent == prefix / _UNITS for path in written):
        done.append(_run(dry_run, "systemctl", "stop", *_UNIT_NAMES[:-1], "decnet-worker@*.service"))
        done.append(_run(dry_run, "systemctl", "disable", "--quiet", *_UNIT_NAMES))
    done += [_remove(path, dry_run) for path in written]
    manual = [path for name in pages() if (path := prefix / _MANUAL / name).exists()]
    done += _in_short([_remove(path, dry_run) for path in manual], prefix)
    if written and _booted(prefix):
        done.append(_run(dry_run, "systemctl", "daemon-reload"))
    done.append(
        f"kept {prefix / 'etc/decnet-reaper'}, {prefix / 'var/lib/decnet-reaper'}, the user decnet-reaper"
    )
    return done


def _shipped() -> Path:
    """The data files: in this package in a wheel, beside it in a checkout."""
    here = Path(__file__).parents[2]
    return here / "systemd" if (here / "systemd").is_dir() else here.parent / "systemd"


def _files(command: Path) -> dict[Path, str]:
    shipped = _shipped()
    quoted = str(command).replace("%", "%%")
    files = {
        _UNITS / name: (shipped / "system" / name).read_text().replace(_COMMAND, quoted)
        for name in _UNIT_NAMES
    }
    for kind in ("sysusers.d", "tmpfiles.d"):
        files[Path("etc") / kind / "decnet-reaper.conf"] = (shipped / kind / "decnet-reaper.conf").read_text()
    return files


def _own_command() -> Path:
    _check_visible(Path(sys.executable).resolve())
    return Path(sysconfig.get_path("scripts")) / "decnet-reaper"


def _check_command(command: Path) -> None:
    if not os.access(command, os.X_OK):
        raise InstallError(f"there is no command {command}; install the package with pip first")
    _check_visible(command)
    if any(character.isspace() or character in "\"'\\$" for character in str(command)):
        raise InstallError(f"the path {command} can't stand in a unit; choose one without blanks and quotes")


def _check_visible(path: Path) -> None:
    if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
        raise InstallError(
            f"{path} can't be seen by the units, which have no access to home and temporary directories;"
            " install into a virtual environment such as /opt/decnet-reaper, with a Python that all can read"
        )


def _live(prefix: Path) -> bool:
    return prefix.resolve() == Path("/")


def _booted(prefix: Path) -> bool:
    return _live(prefix) and Path("/run/systemd/system").is_dir()  # sd_booted(3)


def _check_root(prefix: Path, dry_run: bool) -> None:
    if _live(prefix) and not dry_run and os.geteuid() != 0:
        raise InstallError(
            "needs root for the prefix /; run it with sudo, or see what it would do with --dry-run"
        )


def _write(path: Path, text: str, dry_run: bool) -> str:
    try:
        if path.is_file() and path.read_text() == text:
            return f"unchanged {path}"
        if not dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o644)
    except OSError as error:
        raise InstallError(f"{path} can't be written: {error.strerror}") from None
    return f"wrote {path}"


def _remove(path: Path, dry_run: bool) -> str:
    try:
        if not dry_run:
            path.unlink()
    except OSError as error:
        raise InstallError(f"{path} can't be removed: {error.strerror}") from None
    return f"removed {path}"


def _in_short(done: list[str], prefix: Path) -> list[str]:
    """A line for each thing that was done to man pages, however many there are."""
    verbs = [line.split()[0] for line in done]
    return [
        f"{verb} {verbs.count(verb)} man pages in {prefix / _MANUAL}"
        for verb in sorted({*verbs}, reverse=True)
    ]


def _run(dry_run: bool, *command: str) -> str:
    if not dry_run:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise InstallError(f"{command[0]} is missing; is this a machine with systemd?") from None
        except subprocess.CalledProcessError as error:
            raise InstallError(f"{' '.join(command)} failed: {' '.join(error.stderr.split())}") from None
    return f"ran {' '.join(command)}"
