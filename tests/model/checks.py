"""Which checks of the models there are, and how spin makes them.

A check is a model with its bounds. A mutant is a check with one guard of the protocol taken out: spin must
find a run that breaks a promise, and that run is read back as a story.
"""

import os
import re
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

_PROMELA = Path(__file__).parent / "promela"
_STORED = re.compile(r"^\s*(\d+) states, stored", re.MULTILINE)
_LONG_S = 600
_WORDS = {
    "daemon 0": "worker A",
    "daemon 1": "worker B",
    "daemon 2": "reaper A",
    "daemon 3": "reaper B",
    "row 0": "the first row",
    "row 1": "its retry",
    "row 2": "the second row",
    " of decky 0": "",
}


@dataclass(frozen=True)
class Check:
    """One run of spin.

    Attributes:
        name: of the check; of a mutant the define that takes the guard out.
        model: the file, without its suffix.
        defines: bounds and mode.
        live: whether it asks for what must happen in the end, if whatever can go on goes on; else it asks for
            what must never happen.
        guard: of a mutant: what is missing.
    """

    name: str
    model: str
    defines: str
    live: bool = False
    guard: str = ""


@dataclass(frozen=True)
class Result:
    """What spin found.

    Attributes:
        broken: whether a promise is broken.
        states: how many different states it has visited.
        seconds: of one core that the search took, without compiling.
        story: the run that breaks the promise, a line a step.
    """

    broken: bool
    states: int
    seconds: float
    story: list[str]


_ONE = "-DDECKIES=1 -DREAPERS=2 -DFAULTS=2"
_REPLACED = "-DDECKIES=1 -DREAPERS=1 -DFAULTS=2 -DREPLACED"
_LIVE = "-DDECKIES=1 -DREAPERS=1 -DFAULTS=1 -DLIVE"
_HOSTS = "-DFAULTS=4"

CHECKS = [
    Check("one decky, two rows, four faults", "host", "-DDECKIES=1 -DREAPERS=2 -DFAULTS=4"),
    Check("two deckies, two faults", "host", "-DDECKIES=2 -DREAPERS=2 -DFAULTS=2"),
    Check("the lock directory is replaced", "host", _REPLACED),
    Check("the same with two reapers, one fault", "host", "-DDECKIES=1 -DREAPERS=2 -DFAULTS=1 -DREPLACED"),
    Check("the store forgets a claim", "host", _REPLACED + " -DSTORE_FORGETS"),
    Check("every row ends", "host", _LIVE, live=True),
    Check("every row ends, with two reapers", "host", "-DDECKIES=1 -DREAPERS=2 -DFAULTS=1 -DLIVE", live=True),
    Check("every row ends, the lock directory replaced", "host", _LIVE + " -DREPLACED", live=True),
    Check("the reaper releases the lock before it closes", "host", _ONE + " -DRELEASE_EARLY"),
    Check("nobody enqueues the decky's next row", "host", _LIVE + " -DNO_NEXT", live=True),
    Check("hosts and their presence", "presence", "-DFAULTS=5"),
    Check("every row ends, of a host that is back", "presence", "-DFAULTS=4 -DLIVE", live=True),
]

# What is missing in each mutant, by the define that takes it out.
_GUARDS = {
    "CLAIM_BEFORE_LOCK": "the lock is taken before the row is claimed",
    "CHILD_WITHOUT_LOCK": "the child inherits the lock",
    "LOOK_THEN_READ": "the reaper holds the lock while it judges and closes",
    "OUT_OF_TURN": "a claim only where no older open row of the decky is there",
    "LEAVE_SURVIVORS": "what an operation leaves is ended before its row ends",
    "END_ANY_HOLDER": "the reaper ends only whom the dead owner passed the lock on to",
    "CLOSE_OVERDUE": "an overdue owner is ended, and its lock taken, before its row is closed",
    "EXPIRE_UNSEEN": "a row is closed as expired only where it is still pending",
    "RETRY_FOREVER": "a retry only while attempts are left",
    "RETRY_APART": "a row's end and its retry are one transaction",
    "CANCEL_FORGOTTEN": "who ends a row looks whether it was cancelled",
}
_GUARDS_OF_DIRECTORIES = {
    "ANY_DIRECTORY": "the owner names its lock directory",
    "SURVIVORS_ELSEWHERE": "what a dead owner left in another lock directory is ended before its row ends",
}
_GUARDS_OF_LIVENESS = {
    "ONLY_OWN_DIRECTORY": "a dead owner's row is closed in whatever directory it was claimed",
    "KEEP_SURVIVORS": "the reaper ends what a dead owner left",
    "NO_DEADLINE": "an owner that doesn't respond is ended past its deadline",
    "NO_REDELIVERY": "the reaper enqueues again what was not claimed",
    "NO_POLL": "while the queue is away, workers ask the store",
}
_GUARDS_OF_PRESENCE = {
    "BROKEN_SESSION": "a host's absence is counted within one unbroken session of the observer",
    "LONG_LOOK": "an observer that did not look for long begins its count anew",
    "CAPPED_LOOK": "it begins anew: not to count that time is not enough",
    "CLOSE_UNSEEN": "a row is closed as lost only where its host is not present",
    "STALE_COUNT": "a host is written down as lost only where it was not back since the observer looked",
    "STALE_WORD": "a row is closed as lost only where its host is still written down as lost",
    "MARK_STAYS": "a host that has its session again is lost no more",
    "LATE_WRITE": "a terminal write only where the row is still running",
}
_GUARDS_OF_RETURN = {
    "SURVIVORS_OF_LOST": "a host that is back ends what is left of rows that were closed as lost, too",
    "DEADLINE_OF_LOST": "and an overdue owner also where its row was closed as lost",
}

_FORGETS = "a terminal write only where the row is the writer's own (matters where a store forgets)"

MUTANTS = [
    *(Check(name, "host", _ONE, guard=guard) for name, guard in _GUARDS.items()),
    *(Check(name, "host", _REPLACED, guard=guard) for name, guard in _GUARDS_OF_DIRECTORIES.items()),
    Check("NO_OWNER", "host", _REPLACED + " -DSTORE_FORGETS", guard=_FORGETS),
    *(Check(name, "host", _LIVE, True, guard) for name, guard in _GUARDS_OF_LIVENESS.items()),
    *(Check(name, "presence", _HOSTS, guard=guard) for name, guard in _GUARDS_OF_PRESENCE.items()),
    *(Check(name, "presence", _HOSTS + " -DLIVE", True, guard) for name, guard in _GUARDS_OF_RETURN.items()),
]


def need_spin() -> None:
    """Skip where spin or gcc is missing; fail there where DECNET_REQUIRE_E2E is 1."""
    missing = [name for name in ("spin", "gcc") if shutil.which(name) is None]
    if missing:
        (pytest.fail if os.environ.get("DECNET_REQUIRE_E2E") == "1" else pytest.skip)(
            f"needs {' and '.join(missing)} (Debian: apt-get install spin gcc)"
        )


def run(check: Check) -> Result:
    """Search all runs of a check."""
    with tempfile.TemporaryDirectory(prefix="spin-") as scratch:
        return _run(check, Path(scratch))


def _run(check: Check, scratch: Path) -> Result:
    for file in _PROMELA.glob("*.pml"):
        shutil.copy(file, scratch)
    model = f"{check.model}.pml"
    mutant = [f"-D{check.name}"] if check.guard else []
    defines = check.defines.split() + mutant
    _call(scratch, "spin", "-a", *defines, model)
    search = ["-DNOREDUCE", "-DNOFAIR" if check.live else "-DSAFETY"]
    if check.guard and not check.live:
        search.append("-DBFS")  # finds the shortest run
    _call(scratch, "gcc", "-O0" if check.guard else "-O1", "-w", *search, "-o", "pan", "pan.c")
    begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    how = ["-a"] if check.live else ["-E"]
    said = _call(scratch, "./pan", *how, "-n", "-m2000000", "-w22")
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun
    broken = "errors: 0" not in said
    states = _STORED.search(said)
    assert states is not None, said
    assert broken or "Search not completed" not in said, said
    assert "max search depth too small" not in said, said
    story = _story(scratch, defines, model, live=check.live) if broken else []
    return Result(broken, int(states[1]), round(seconds, 1), story)


def _story(scratch: Path, defines: list[str], model: str, *, live: bool) -> list[str]:
    lines: list[str] = []
    for line in _call(scratch, "spin", "-t", *defines, model).splitlines():
        text = " ".join(line.split())
        if text.startswith("STORY "):
            lines.append(_words(text.removeprefix("STORY ")))
            if "BROKEN" in text:
                break
        elif live and (stays := re.fullmatch(r"(row)\[(\d)\] = (pending|running)", text)):
            lines.append(_words(f"BROKEN: row {stays[2]} stays {stays[3]} for ever"))
    return lines


def _words(line: str) -> str:
    for code, word in _WORDS.items():
        line = line.replace(code, word)
    return line


def _call(scratch: Path, *command: str) -> str:
    finished = subprocess.run(
        command, cwd=scratch, capture_output=True, text=True, timeout=_LONG_S, check=False
    )
    said = finished.stdout + finished.stderr
    assert finished.returncode in {0, 1} or command[0] == "./pan", said
    return said
