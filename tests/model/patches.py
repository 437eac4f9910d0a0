"""The model's mutants as patches of the sources: does anything notice when the code breaks the protocol?

`python -m tests.model.patches > docs/proof-mutants.md` makes a copy of the sources for each, lets the storm
rage over it, and runs the fault tests that are about that guard. It takes a quarter of an hour.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SEED, _MINUTES = "7", "0.6"


@dataclass(frozen=True)
class Patch:
    """One guard taken out of the code.

    Attributes:
        name: of the mutant, as in `checks.py`.
        file: the source.
        old, new: what is replaced; `old` is there exactly once.
        tests: those of the fault suite that should notice.
        store: the storm's.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    store: str = "sqlite"


PATCHES = [
    Patch(
        "CHILD_WITHOUT_LOCK",
        "worker/runtimes/compose.py",
        "inherit = functools.partial(run, env=environment(), pass_fds=(lock_fd,))",
        "inherit = functools.partial(run, env=environment())",
        "tests/faults/process/test_workers.py::test_survivors_of_a_killed_worker_are_ended_and_nobody_else",
    ),
    Patch(
        "LOOK_THEN_READ",
        "reaper/sweep/rules.py",
        "if facts.lock_free and not facts.survivors:",
        "if True:",
        "tests/faults/process/test_workers.py::test_a_stopped_worker_is_never_swept_and_finishes",
    ),
    Patch(
        "OUT_OF_TURN",
        "repo/repository/statements/writes.py",
        ".where(this_row, is_pending, first_in_line)",
        ".where(this_row, is_pending)",
        "tests/repo/contract/test_calls.py",
    ),
    Patch(
        "LEAVE_SURVIVORS",
        "worker/execution/survivors.py",
        "while holds := await _survivors(lock):",
        "while holds := []:",
        "tests/faults/process/test_leftovers.py",
    ),
    Patch(
        "CLOSE_OVERDUE",
        "reaper/sweep/rules.py",
        "return Action(Do.END_OWNER if facts.overdue > policy.overdue_grace else Do.WARN)",
        'return Action(Do.FAIL, "timed out", True, "timed_out")',
        "tests/faults/process/test_workers.py::test_a_worker_that_does_not_respond_past_its_deadline_is_ended",
    ),
    Patch(
        "RETRY_FOREVER",
        "reaper/sweep/rules.py",
        'return row["owner"] is not None and row["attempt"] < policy.max_attempts',
        'return row["owner"] is not None',
        "tests/faults/process/test_workers.py::test_the_last_attempt_is_not_repeated",
    ),
    Patch(
        "CANCEL_FORGOTTEN",
        "repo/repository/statements/writes.py",
        ".where(or_(_t.cancel_requested_at.is_(None), "
        'bindparam("keeps_outcome", type_=_t.attempt.type) == ONE))',
        ".where(_t.attempt >= bindparam('keeps_outcome', type_=_t.attempt.type) * 0)",
        "tests/repo/contract/test_calls.py",
    ),
    Patch(
        "ANY_DIRECTORY",
        "reaper/sweep/assess.py",
        "own_lock = owner is None or owner.boot != self._boot or self._claimed_under(owner, row, lock)",
        "own_lock = True",
        "tests/faults/process/test_elsewhere.py::"
        "test_a_new_lock_directory_says_nothing_about_the_rows_of_the_old_one",
    ),
    Patch(
        "KEEP_SURVIVORS",
        "reaper/sweep/rules.py",
        "return Action(Do.END_SURVIVORS)",
        "return LEAVE",
        "tests/faults/process/test_workers.py::test_survivors_of_a_killed_worker_are_ended_and_nobody_else",
    ),
    Patch(
        "NO_DEADLINE",
        "reaper/sweep/rules.py",
        "return Action(Do.END_OWNER if facts.overdue > policy.overdue_grace else Do.WARN)",
        "return Action(Do.WARN)",
        "tests/faults/process/test_workers.py::test_a_worker_that_does_not_respond_past_its_deadline_is_ended",
    ),
    Patch(
        "NO_REDELIVERY",
        "reaper/sweep/rules.py",
        'return Action(Do.ENQUEUE) if facts.since_enqueued >= backoff(row["deliveries"]) else LEAVE',
        "return LEAVE",
        "tests/faults/queue/test_outages.py::test_a_job_picked_by_a_worker_that_died_before_its_claim_is_rung_again",
    ),
    Patch(
        "STALE_WORD",
        "repo/postgres/guards.sql",
        "AND EXISTS (SELECT FROM decnet_reaper_host WHERE host_uuid = host AND lost_at IS NOT NULL)",
        "",
        "tests/repo/postgres/test_presence.py::test_a_row_is_lost_only_while_its_host_is_written_down_as_lost",
        "hosts",
    ),
]


def copy(patch: Patch, to: Path) -> None:
    """The sources with one guard less."""
    for name in ("repo", "worker", "reaper", "tests", "pyproject.toml", "docs", "systemd", "examples"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to)
    # So that statements are those of the patched sources.
    (to / "repo/repository/prepared.json").write_text("{}")
    file = to / patch.file
    text = file.read_text()
    assert text.count(patch.old) == 1, f"{patch.name}: {patch.file} has {text.count(patch.old)} such places"
    file.write_text(text.replace(patch.old, patch.new))


def main() -> None:
    """Try every patch, and print who noticed."""
    print(_HEAD)  # noqa: T201
    for patch in PATCHES:
        if sys.argv[1:] and patch.name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as scratch:
            copy(patch, Path(scratch))
            with ThreadPoolExecutor() as side_by_side:
                storm_run = f"-m tests.storm --seed {_SEED} --minutes {_MINUTES} --store {patch.store}"
                storming = side_by_side.submit(_run, scratch, *storm_run.split(), "--no-prefix")
                tested = _run(
                    scratch, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *patch.tests.split()
                )
                stormed = storming.result()
        storm, replay = "checker:" in stormed, "replay:" in stormed
        faults = "FAILED " in tested
        cells = " | ".join("**caught**" if found else "-" for found in (storm, replay, faults))
        print(f"| `{patch.name}` | `{patch.file}` | **caught** | {cells} |", flush=True)  # noqa: T201
        print(f"{patch.name}\n{stormed[-900:]}\n{tested[-700:]}", file=sys.stderr)  # noqa: T201


_HEAD = """# Who notices a broken protocol

Made by `python -m tests.model.patches > docs/proof-mutants.md`: each guard of the model that stands in one
place of the code is taken out of a copy of the sources. Then 36 seconds of storm, always the same seed; the
replay of its log and history against the model's steps; and the fault tests that are about the guard. So
short a storm notices only what it meets.

| mutant | where | model | storm's checker | replay | fault tests |
|---|---|---|---|---|---|"""


def _run(scratch: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": scratch, "TMPDIR": scratch}
    try:
        finished = subprocess.run(
            [sys.executable, *arguments],
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "FAILED as it hangs"
    return finished.stdout + finished.stderr


if __name__ == "__main__":
    main()
