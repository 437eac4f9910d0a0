"""Run every benchmark and write docs/performance.md: `python -m benchmarks.run [--quick] [NAME...]`.

About 20 minutes; needs a queue server, a Docker engine for the fleet, root and systemd-nspawn for the restart
(said where there is none). With names only those parts are measured again; the others, and what is written by
hand at the end, stay.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

from benchmarks.contest import PEERS, ROOT
from benchmarks.report import HEADINGS, Result, machine

DOCUMENT = ROOT / "docs" / "performance.md"
BY_HAND = "Where the time goes"
ALL = (
    "store",
    "postgres",
    "latency",
    "drain",
    "submit",
    "shared",
    "reap",
    "idle",
    "startup",
    "deckies",
    "growth",
    "restart",
    "recovery",
    "page",
)
_PACKAGES = ("sqlalchemy", "arq", "redis", "msgspec", "structlog")


def measured(name: str, quick: bool) -> str:
    """One benchmark's section."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    if name == "recovery":
        command += ["--rounds", "5" if quick else "20"]
    else:
        command += ["--json", *(["--quick"] if quick else [])]
    print(f"{name} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        return f"Could not be measured here: exit status {done.returncode}.\n"
    if name == "recovery":
        return done.stdout
    lines = [Result(*fields).cells() for fields in json.loads(done.stdout)]
    rows = [HEADINGS, ["---"] * len(HEADINGS), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def about(name: str) -> str:
    """What a benchmark says of itself."""
    return (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip()


def heading() -> str:
    """On what, when, under which load."""
    server = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return f"""# Performance

Made by `python -m benchmarks.run`; each part is a command of its own, `python -m benchmarks.NAME`. Every
comparison was made in one call, in turns, and shows medians; a ratio above 1 means that we are better. Every
write of ours is durable when it is acknowledged, but for a claim on SQLite, which is so 5 ms later.

- {machine()}
- {versions}; {server.stdout.split(" sha")[0] or "Valkey"}
- peers: {", ".join(PEERS)}
- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load average {os.getloadavg()[0]:.1f} at the start
"""


def main() -> None:
    """Run them and write the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all")
    arguments = parser.parse_args()
    parts = written()
    for name in arguments.names or ALL:
        parts[name] = f"{about(name)}\n\n{measured(name, arguments.quick)}"
        found = [f"## {each}\n\n{parts[each].strip()}\n" for each in (*ALL, BY_HAND) if each in parts]
        DOCUMENT.write_text("\n".join([heading(), *found]))


def written() -> dict[str, str]:
    """The parts of the document as it is."""
    _, *parts = DOCUMENT.read_text().split("\n## ") if DOCUMENT.exists() else [""]
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}


if __name__ == "__main__":
    main()
