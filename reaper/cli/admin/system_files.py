"""What `install` puts on a system and `uninstall` takes away: which files, where, and how it is done."""

import os
import stat
import subprocess
import sys
from importlib.metadata import files as files_of
from pathlib import Path

import click

from reaper.cli.output.table import to_json
from repo.errors import DecnetReaperError
from repo.settings import SYSTEM_STATE_DIR
from repo.sqlite.files import SERVICE_USER, give_to_service
from worker.service import after_stop

COMMAND = Path("/usr/bin/decnet-reaper")
"""What the units as shipped call; replaced by where the command really is."""
_PYTHON = "/usr/bin/python3"
_AFTER_STOP = "/usr/lib/decnet-reaper/after_stop.py"
"""Called by the worker's unit, and replaced likewise."""

UNITS = Path("etc/systemd/system")
CONFIG = Path("etc/decnet-reaper/config.toml")
UNIT_NAMES = (
    "decnet-reaper.target",
    "decnet-reaper.service",
    "decnet-reaper-sweep.timer",
    "decnet-reaper-sweep.service",
    "decnet-reaper-web.service",
    "decnet-worker@.service",
)
SERVER_DROP_INS = tuple(
    UNITS / f"{name}.d" / "servers.conf"
    for name in ("decnet-reaper.service", "decnet-reaper-sweep.service", "decnet-reaper-web.service")
)
"""What lets the units that talk to their own machine only reach the servers of a fleet."""

_MANUAL = Path("usr/local/share/man/man1")


class InstallError(DecnetReaperError):
    """It can't be installed or removed like this; one line says why and what to do."""


def shipped(name: str) -> Path:
    """A file or folder that comes with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[2]
    return package / name if (package / name).exists() else package.parent / name


def files(command: Path = COMMAND) -> dict[Path, str]:
    """Units, sysusers.d and tmpfiles.d, by their places below the root; the units call `command`."""
    found = {UNITS / name: (shipped("systemd/system") / name).read_text() for name in UNIT_NAMES}
    for shipped_as, path in (
        (COMMAND, command),
        (_PYTHON, sys.executable),
        (_AFTER_STOP, after_stop.__file__),
    ):
        quoted = str(path).replace("%", "%%")
        found = {target: text.replace(str(shipped_as), quoted) for target, text in found.items()}
    for kind in ("sysusers.d", "tmpfiles.d"):
        name = f"{kind}/decnet-reaper.conf"
        found[Path("etc") / name] = (shipped("systemd") / name).read_text()
    return found


def manual_pages() -> dict[Path, str]:
    """The man pages, by their places below the root."""
    if (checkout := shipped("man")).is_dir():
        pages = [*checkout.iterdir()]
    else:  # where a wheel puts what is not code: once, and found by man(1) in a virtual environment too
        listed = files_of("decnet-reaper") or ()
        pages = [Path(str(page.locate())) for page in listed if page.match("share/man/man1/*")]
    return {_MANUAL / page.name: page.read_text() for page in sorted(pages)}


def print_done(done: list[str], *, as_json: bool) -> None:
    """Print what was done, a line each, or as a JSON array."""
    click.echo(to_json(done) if as_json else "\n".join(done))


def mend_owners(dry_run: bool) -> list[str]:
    """Give what root made in the state directory before the service was there to the service's user."""
    done = []
    for path in sorted(SYSTEM_STATE_DIR.glob(f"{SYSTEM_STATE_DIR.name}.db*")):
        for each in [path, *(sorted(path.iterdir()) if path.is_dir() else ())]:
            if each.stat(follow_symlinks=False).st_uid == 0:
                done.append(f"gave {each} to the user {SERVICE_USER}")
                if not dry_run:
                    give_to_service(each)
    return done


def live(prefix: Path) -> bool:
    """Whether this is the running system, not the root of an image."""
    return prefix.resolve() == Path("/")


def booted(prefix: Path) -> bool:
    """Whether systemd runs on it."""
    return live(prefix) and Path("/run/systemd/system").is_dir()  # sd_booted(3)


def check_root(prefix: Path, dry_run: bool) -> None:
    """Refuse to change the running system as somebody else than root."""
    if live(prefix) and not dry_run and os.geteuid() != 0:
        raise InstallError(
            "needs root for the prefix /; run it with sudo, or see what it would do with --dry-run"
        )


def write(path: Path, text: str, dry_run: bool, mode: int = 0o644) -> str:
    """Write a file as a whole or not at all, by default one that all may read; returns what was done."""
    try:
        found = path.stat() if path.is_file() else None
        if found and path.read_text() == text and stat.S_IMODE(found.st_mode) == mode:
            return f"unchanged {path}"
        if path.is_symlink():
            return f"kept {path}, which is masked or a link"
        if not dry_run:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if mode & 0o004 else 0o700)
            new = path.with_name(f".{path.name}.new")
            new.unlink(missing_ok=True)  # of an install that was killed
            with open(new, "x", opener=lambda name, flags: os.open(name, flags, mode)) as file:
                if found:
                    os.fchown(file.fileno(), found.st_uid, found.st_gid)
                os.fchmod(file.fileno(), mode)
                file.write(text)
            new.replace(path)
    except OSError as error:
        raise InstallError(f"{path} can't be written: {error.strerror}") from None
    return f"wrote {path}"


def remove(path: Path, dry_run: bool) -> str:
    """Remove a file; returns what was done."""
    try:
        if not dry_run:
            path.unlink()
    except OSError as error:
        raise InstallError(f"{path} can't be removed: {error.strerror}") from None
    return f"removed {path}"


def in_short(done: list[str], prefix: Path) -> list[str]:
    """A line for each thing that was done to man pages, however many there are."""
    verbs = [line.split()[0] for line in done]
    return [
        f"{verb} {verbs.count(verb)} man pages in {prefix / _MANUAL}"
        for verb in sorted({*verbs}, reverse=True)
    ]


def run(dry_run: bool, *command: str) -> str:
    """Run a program of the system; returns what was done."""
    if not dry_run:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise InstallError(f"{command[0]} is missing; is this a machine with systemd?") from None
        except subprocess.CalledProcessError as error:
            raise InstallError(f"{' '.join(command)} failed: {' '.join(error.stderr.split())}") from None
    return f"ran {' '.join(command)}"
