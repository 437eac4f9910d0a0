"""An environment with DECNET's release from PyPI and what our package needs, made once a machine.

As a program it makes it, with no package but Python's own: half a gigabyte from the network, a minute or two.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

RELEASE = "1.0.0"
# What both need, as DECNET's lock has it. (Its starlette, 1.0.1, is older than what the release asks for.)
LOCKED = (
    *("aiosqlite==0.22.1", "click==8.3.2", "fastapi==0.135.3", "greenlet==3.4.0", "pydantic==2.12.5"),
    *("pyyaml==6.0.3", "rich==14.3.3", "sqlalchemy==2.0.49", "sqlmodel==0.0.38", "typing-extensions==4.15.0"),
    "uvicorn==0.44.0",
)


def is_made() -> bool:
    """Whether it is there."""
    return (_home() / "complete").exists()


def make() -> Path:
    """Make it where it isn't there; its Python."""
    home = _home()
    home.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{home}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be at it
        if not is_made():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *_wanted()], check=True)
            (home / "complete").touch()
    return home / "bin/python"


def _home() -> Path:
    cache = Path(os.environ.get("DECNET_CI_CACHE") or "/var/cache/decnet-reaper")
    return cache / f"decnet-{RELEASE}-{hashlib.sha256(repr(_wanted()).encode()).hexdigest()[:8]}"


def _wanted() -> tuple[str, ...]:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    return (f"decnet=={RELEASE}", *LOCKED, *project["dependencies"])


if __name__ == "__main__":
    make()
