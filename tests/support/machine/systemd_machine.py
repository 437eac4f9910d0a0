"""A whole machine with a real systemd: this host's distribution, booted in a systemd-nspawn container.

The base system is made once by debootstrap and kept in $DECNET_CI_CACHE (else /var/cache/decnet-reaper); each
machine writes into a layer of its own above it. Nothing of the host is reached from inside: no network, no
shared directory.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.support.fleet import HANG_GUARD_S
from tests.support.needs import lacking

SOURCE = Path(__file__).parents[3]
PACKAGES = (
    *("dbus", "iproute2", "jq", "postgresql", "procps", "python3", "python3-venv", "redis-server"),
    *("systemd", "systemd-sysv"),
)
VENV = Path("/opt/decnet-reaper")

_ENVIRONMENT = (
    "env",
    "-i",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8",
    "DECNET_REAPER_RUNTIME=process",  # no Docker inside; the units are told by `_use_process_runtime`
)
# Only on this hierarchy does systemd learn of oom-kills, and enforce IPAddressDeny= (by the kernel's BPF).
_NSPAWN = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
_REBOOTED = 133  # what systemd-nspawn --keep-unit exits with, for its own unit to start it again
_BOOT_TIMEOUT_S = 120.0

Entry = dict[str, Any]


def missing() -> list[str]:
    """What keeps a machine from being booted here."""
    tools = [tool for tool in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(tool) is None]
    return tools if os.geteuid() == 0 else ["root", *tools]


def base_system() -> Path:
    """The directory of the pristine system, made on first use (a minute or two)."""
    release = platform.freedesktop_os_release()
    components = "main,universe" if release["ID"] == "ubuntu" else "main"
    recipe = " ".join([release["VERSION_CODENAME"], components, *PACKAGES])
    cache = Path(os.environ.get("DECNET_CI_CACHE") or "/var/cache/decnet-reaper")
    cache.mkdir(parents=True, exist_ok=True)
    base = cache / f"{release['VERSION_CODENAME']}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.is_dir():
            made = base.with_suffix(".part")
            shutil.rmtree(made, ignore_errors=True)
            _call(
                "debootstrap",
                "--variant=minbase",
                f"--components={components}",
                f"--include={','.join(PACKAGES)}",
                release["VERSION_CODENAME"],
                str(made),
            )
            made.rename(base)
    return base


def wheels(directory: Path, python: str) -> None:
    """Build our wheel, and fetch the wheels that it needs for a Python version such as 3.11, as locked."""
    _call(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(directory),
        cwd=SOURCE,
    )
    locked = [line.partition(" \\")[0] for line in (SOURCE / "requirements.lock").read_text().splitlines()]
    constraints = directory / "constraints.txt"
    constraints.write_text("\n".join(line for line in locked if "==" in line))
    # pip evaluates markers for the interpreter that it runs in, so these would be left out.
    patch_level = re.compile(r"(\S+) ; python_full_version < '\d+\.\d+\.\d+'")
    other_patch_level = [match[1] for line in locked if (match := patch_level.fullmatch(line))]
    _call(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--only-binary=:all:", f"--python-version={python}", f"--constraint={constraints}",
        f"--dest={directory}", *(f"{ours}[postgresql,web]" for ours in directory.glob("decnet_reaper-*.whl")),
        *other_patch_level,
    )  # fmt: skip


class Machine:
    """One machine. Start it with `boot`; `machine` below does all of it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self._console = directory / "console.log"
        self._notify = directory / "notify"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = ""
        self._cgroup = _own_cgroup() / f"decnet-machine-{secrets.token_hex(4)}"

    def boot(self) -> None:
        """Start it, and return when its systemd says that it is up."""
        with self.booting():
            pass

    @contextmanager
    def booting(self) -> Iterator[None]:
        """Start it; the body runs as soon as commands can, and the end waits until its systemd is up."""
        self._notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self._console.open("ab") as console:
            notify.bind(str(self._notify))
            notify.settimeout(_BOOT_TIMEOUT_S)
            # In one control group two machines would kill each other's services, and remove their groups.
            self._cgroup.mkdir(exist_ok=True)
            self._nspawn = subprocess.Popen(
                ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._cgroup / "cgroup.procs"),
                 "setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", "--register=no",
                 "--keep-unit",
                 "--private-network", "--notify-ready=yes", "--resolv-conf=off", "--timezone=off",
                 "--link-journal=no", "--console=pipe", f"--directory={self.root}",
                 "--capability=CAP_BPF", "--system-call-filter=bpf", "--boot"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                env=os.environ | _NSPAWN | {"NOTIFY_SOCKET": str(self._notify)}, start_new_session=True,
            )  # fmt: skip
            self._leader = self._said(notify, "X_NSPAWN_LEADER_PID")
            assert self._cgroup.name in Path(f"/proc/{self._leader}/cgroup").read_text()
            yield
            self._said(notify, "READY")

    def _said(self, notify: socket.socket, name: str) -> str:
        while True:
            try:
                message = notify.recv(4096).decode()
            except TimeoutError:
                raise AssertionError(f"the machine did not boot:\n{self._console.read_text()}") from None
            said = dict(line.partition("=")[::2] for line in message.splitlines())
            if name in said:
                return said[name]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; with `check` a failure is an AssertionError that shows why."""
        done = subprocess.run(self._inside(*command), capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            said = f"exit {done.returncode}\n{done.stdout}{done.stderr}\n{self._last_of_journal()}"
            raise AssertionError(f"{' '.join(command)}: {said}")
        return done

    def kill(self, unit: str) -> None:
        """SIGKILL all of a unit's processes, and wait for nothing."""
        self.run("systemctl", "kill", "--signal=KILL", unit)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` prints them."""
        lines = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).stdout
        return dict(line.partition("=")[::2] for line in lines.splitlines())

    def wait_for(self, wanted: Callable[[Entry], bool], since: str = "") -> Entry:
        """Follow the journal of this boot until an entry is wanted; returns it.

        Args:
            wanted: gets each entry as `journalctl -o json` writes it, with our own lines decoded as `EVENT`.
            since: the `__CURSOR` of the entry to begin after (default: the beginning).
        """
        start = f"--after-cursor={since}" if since else "--lines=all"
        follow = self._inside("journalctl", "--boot", "--follow", "--output=json", "--quiet", start)
        with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as journal:
            assert journal.stdout is not None
            give_up = threading.Timer(HANG_GUARD_S, journal.kill)
            give_up.start()
            try:
                for entry in map(_entry, journal.stdout):
                    if wanted(entry):
                        return entry
            finally:
                give_up.cancel()
                journal.kill()
        raise AssertionError(f"nothing like it for {HANG_GUARD_S:g} s\n{self._last_of_journal()}")

    def cursor(self) -> str:
        """Where the journal is now, for `wait_for`."""
        return str(json.loads(self.run("journalctl", "--lines=1", "--output=json").stdout)["__CURSOR"])

    def now(self) -> str:
        """The time, for `journalctl --since`: with --after-cursor and a match, 252 skips the first entry."""
        return self.run("date", "+@%s.%6N").stdout.strip()

    def connect(self, address: str, other: Self, other_address: str) -> None:
        """Lay a cable to another machine, until one of them stops; each keeps its own address without it."""
        veth = ("type", "veth", "peer", "name", "cable", "netns", other._leader)
        _call("ip", "link", "add", "cable", "netns", self._leader, *veth)
        for end, its, far in ((self, address, other_address), (other, other_address, address)):
            end.run("ip", "address", "replace", f"{its}/32", "dev", "lo")
            end.run("ip", "link", "set", "cable", "up")
            end.run("ip", "route", "replace", far, "dev", "cable", "src", its)

    def reset(self) -> None:
        """Reboot at once, as a reset button does: nothing is stopped, nothing is asked."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", "--force", "--force", check=False)
        assert self._nspawn.wait(_BOOT_TIMEOUT_S) == _REBOOTED
        self.boot()

    def power_off(self) -> None:
        """Take its power away."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            self.run("systemctl", "poweroff", "--force", "--force", check=False)
            try:
                self._nspawn.wait(_BOOT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            Path(folder).rmdir()

    def _last_of_journal(self) -> str:
        last = self.run("journalctl", "--boot", "--lines=30", "--no-pager", check=False).stdout
        return f"the journal's end is:\n{last}"

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self._leader}", "--all", *_ENVIRONMENT, *command]


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """A booted machine below `directory`, our package in a virtual environment, but no unit installed yet.

    Machines below one directory share what is installed. Skips, or fails, where `missing` says why.
    """
    if reasons := missing():
        lacking(*reasons)
    booted = Machine(Path(tempfile.mkdtemp(prefix="machine-", dir=directory)))
    with _layer([_installed_system(directory), base_system()], booted.root):
        try:
            booted.boot()
            yield booted
        finally:
            booted.power_off()


def _installed_system(directory: Path) -> Path:
    """What our package adds to the pristine system, made on first use."""
    made = directory / "installed"
    with (directory / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            with _layer([base_system()], directory / "install") as root:
                _install(root)
            (directory / "install-layer").rename(made)
    return made


def _install(root: Path) -> None:
    inside = ("chroot", str(root), *_ENVIRONMENT)
    python = _call(*inside, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    _use_process_runtime(root)
    fetched = root / "root/wheels"
    fetched.mkdir()
    wheels(fetched, python.strip())
    _call(*inside, "python3", "-m", "venv", str(VENV))
    pip = (f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--find-links=/root/wheels")
    _call(*inside, *pip, "decnet-reaper[postgresql,web]")


@contextmanager
def _layer(below: list[Path], root: Path) -> Iterator[Path]:
    """Mount these, the first on top, as one tree; what is written goes to the folder `-layer` beside it."""
    written, work = (root.with_name(f"{root.name}-{name}") for name in ("layer", "work"))
    for folder in (root, written, work):
        folder.mkdir()
    layers = f"lowerdir={':'.join(map(str, below))},upperdir={written},workdir={work}"
    _call("mount", "-t", "overlay", "overlay", "-o", layers, str(root))
    try:
        yield root
    finally:
        _call("umount", str(root))


def _own_cgroup() -> Path:
    """This process's control group, in the hierarchy where systemd-nspawn makes its own."""
    mounted = Path("/sys/fs/cgroup/unified")
    path = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return (mounted if mounted.is_dir() else mounted.parent) / path.removeprefix("0::/")


def _use_process_runtime(root: Path) -> None:
    """The runtime of the units, which the installed configuration sets to compose."""
    folder = root / "etc/systemd/system.conf.d"
    folder.mkdir(parents=True)
    (folder / "process.conf").write_text("[Manager]\nDefaultEnvironment=DECNET_REAPER_RUNTIME=process\n")


def _call(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _entry(line: str) -> Entry:
    entry: Entry = json.loads(line)
    try:
        entry["EVENT"] = json.loads(entry["MESSAGE"])
    except (KeyError, TypeError, ValueError):
        entry["EVENT"] = {}
    return entry if isinstance(entry["EVENT"], dict) else entry | {"EVENT": {}}
