"""What every fault comes to: `python -m benchmarks.faults --names > docs/faults.md`.

It prints the table of faults, with the scenarios that inject them. Without --names it runs them (the auditor
of tests/support looks at the end of each) and says how each ended and how long it took, instead. With
--recovery, the times after kill -9 too, with plain arq beside them (six minutes).
"""

import argparse
import asyncio
import contextlib
import platform
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from benchmarks import recovery


class Fault(NamedTuple):
    """One row of the table.

    Attributes:
        what: what is done to the system.
        outcome: what comes out.
        tests: the scenarios: beginnings of names of tests/faults, its files, or names elsewhere in full.
    """

    what: str
    outcome: str
    tests: tuple[str, ...]


_CALLS = "tests/repo/contract/test_calls.py"
_GUARDS = "tests/repo/sqlite/test_guards.py"
_SKELETON = "tests/worker/service/test_skeleton.py"
_RUNTIMES = "tests/worker/runtimes/test_registry.py"
_LOGS = "tests/e2e/monitoring/test_logs_command.py"
_OPERATIONS = "tests/reaper/cli/operations/test_operations.py"

FAULTS = (
    Fault(
        "worker `kill -9`; a process of its operation survives",
        "the survivor is ended, an innocent process is not; the row is closed when it is gone",
        ("test_survivors_of", "test_whoever_holds_the_lock"),
    ),
    Fault(
        "worker `kill -9` between pick and claim",
        "enqueued again after 5 s (arq: 310 s), runs once",
        ("test_a_worker_killed_between_pick_and_claim", "test_a_job_picked_by"),
    ),
    Fault(
        "worker `kill -9` in mid-operation",
        "closed at once, retried on another worker, in its old place; the last attempt is final",
        ("test_a_killed_worker_s_row", "test_the_last_attempt", "test_the_retry_runs"),
    ),
    Fault(
        "worker `kill -9` in its first operation; a unit's end reported by systemd, to a reaper or to none",
        "found out at once; closed with systemd's reason before the unit starts again",
        ("test_notices.py",),
    ),
    Fault(
        "worker `kill -9` between a commit and its line",
        "the next sweep logs the line that is missing",
        ("test_an_end_that_a_killed_worker",),
    ),
    Fault(
        "worker stopped (SIGSTOP), then continued",
        "never swept, succeeds",
        ("test_a_stopped_worker",),
    ),
    Fault(
        "worker stopped, its row closed by force, worker continued",
        "its write changes nothing, one `lifecycle.late_write_refused`",
        ("test_a_late_write",),
    ),
    Fault(
        "a sweep, a reaper, `up` or a link to the store from another session, with another runtime directory",
        "finds the same locks: no living row is touched; a second `up` on the store is refused",
        ("test_a_sweep_from_another", "test_a_link_to_the_store", "test_a_second_up"),
    ),
    Fault(
        "a daemon with another host id on a store or state directory; a deploy for a host nobody serves",
        "refused with one line; `not started within 1h: no worker serves host h9`; `not seen for 1h`",
        (
            *("test_another_host_id", "test_two_hosts", "test_a_deploy_for_a_host"),
            "test_rows_of_another_host",
        ),
    ),
    Fault(
        "the lock directory removed or replaced under daemons, one of them stopped, or over survivors;"
        " a lock file deleted",
        "the daemons end loudly; a new directory says nothing about old rows; survivors are ended first",
        (
            *("test_a_lock_directory_that", "test_a_new_lock_directory", "test_a_lock_file_that_was"),
            "test_what_a_dead_worker_left",
        ),
    ),
    Fault(
        "a process leaves its session with the lock in hand: of a deploy that succeeds, of a failing mutate",
        "it is ended before the row ends, and before the roll-back begins",
        ("test_what_a_successful_operation", "test_no_roll_back"),
    ),
    Fault(
        "descriptors used up: in a worker, in a reaper while Redis is away; `max_jobs` beyond their limit",
        "rows wait, all recovers when there are some; refused at the start with one line",
        ("test_a_worker_without_descriptors", "test_a_reaper_without_descriptors", "test_more_jobs_than"),
    ),
    Fault(
        "a lock file that can't be opened; a process at the owner's pid that is hidden (`hidepid`)",
        "noted once and left; the others are judged; nobody is taken for dead or killed",
        ("test_a_lock_file_that_can_not", "test_an_owner_that_is_hidden"),
    ),
    Fault(
        "a daemon is process 1 of a container, and children lose their parent",
        "no zombie stays, signals reach the daemon, its exit status is the container's",
        (
            "test_process_1",
            "test_one_ctrl_c",
        ),
    ),
    Fault(
        "a directory that somebody else made, that others can change or rename",
        "refused with one line",
        ("test_a_directory_that",),
    ),
    Fault(
        "worker does not respond past the deadline; operation past its deadline",
        "not swept before; then ended and closed as `timed out after N s`",
        ("test_a_worker_that_does_not_respond", "test_an_operation_past"),
    ),
    Fault(
        "SIGTERM with operations running",
        "what can finishes; the rest is ended, closed and retried; exit status 0",
        ("test_a_worker_told_to_stop",),
    ),
    Fault(
        "three reapers killed, one after the other, in a sweep of 10,000 rows; two reapers at once",
        "every row closed and logged once, but for the row that a killed reaper was logging: twice",
        ("test_reapers_killed", "test_two_reapers"),
    ),
    Fault(
        "Redis killed and replaced by an empty one, while jobs run and are submitted",
        "jobs in flight finish, what is submitted runs, each once; a line when it goes and when it is back",
        ("test_redis_killed",),
    ),
    Fault(
        "submits while Redis is killed, frozen, read-only",
        "each runs within two seconds, once; no more than free slots; what can't run keeps no other waiting",
        ("test_store_poll.py",),
    ),
    Fault(
        "Redis frozen; read-only; wrong password (seconds; 30 s with `-m long`)",
        "no hang, no crash, one line each, goes on unaided",
        ("test_redis_frozen", "test_redis_read_only", "test_a_wrong_password"),
    ),
    Fault(
        "Redis full; at the edge of its memory; without ZMSCORE; a key of ours of another type",
        "one line when it can't be used, one when it can; no row waits for it; `doctor` says it",
        ("test_half_usable.py",),
    ),
    Fault(
        "Sentinel: the master killed, frozen; jobs that its replica never got; a sentinel dead",
        "jobs in flight are recorded, work goes on meanwhile, lost jobs are enqueued again",
        ("test_sentinel.py",),
    ),
    Fault(
        "two stores with one Redis",
        "the second one's daemons are refused with a line that names both; its clients are warned",
        ("test_two_stores.py",),
    ),
    Fault(
        "FLUSHALL with 1,000 pending rows",
        "all enqueued again in one sweep, each runs once; a long queue gets no duplicates",
        ("test_a_flush_with",),
    ),
    Fault(
        "a job delivered twice, unknown, garbage, a pickle",
        "one run; one warning each; no code runs",
        ("test_deliveries_that",),
    ),
    Fault("master dies between commit and enqueue", "the reaper enqueues", ("test_a_row_committed",)),
    Fault(
        "reboot; everything died while no reaper ran",
        "closed by the reaper's first sweep, without Redis: `master restarted during operation`",
        ("test_a_reboot", "test_a_worker_that_died_while"),
    ),
    Fault("store locked by another process", "waited out, no error", ("test_a_store_that_another",)),
    Fault(
        "store on PostgreSQL: its server killed, or restarted, while an operation ends; a worker killed",
        "no daemon ends, what ran is recorded when the server is back; the row is closed and retried at once",
        ("store/test_postgres.py",),
    ),
    Fault(
        "a host whose daemons are killed; one cut off that finishes what it did; a process that outlives it",
        "lost after `host_lost_after`, retried when it is back; the late write is refused and told; its own"
        " reaper ends the survivor",
        ("store/test_hosts.py",),
    ),
    Fault(
        "a reaper held up between its look and its write, while the host comes back and goes again",
        "the host is counted out anew before its row is closed",
        ("test_a_reaper_held_up_before_its_write",),
    ),
    Fault(
        "a host that an operator gives up, or removes",
        "told; its running rows are closed as lost; one that was removed is forgotten with its last open row",
        ("test_a_host_that_an_operator_gives_up",),
    ),
    Fault(
        "daemons stopped, upgraded, or in a long garbage collection, a wall clock set; the database, or an"
        " observer, away for long; a failover to the standby",
        "no host is lost, and no row",
        ("store/test_no_loss.py",),
    ),
    Fault(
        "a daemon's database behind PgBouncer; a reaper with a host's own role beside a host that goes",
        "refused at the start in one line; it judges no other host",
        ("test_a_daemon_behind_a_pooler", "test_a_host_with_a_role_of_its_own_judges_no_other"),
    ),
    Fault(
        "cables of whole hosts cut by dropped packets, both ways or one way, while rows wait, are claimed, at"
        " work, at their end",
        "lost; a write that arrived stands, one that is late is refused and told; each host is said once, all"
        " retries run",
        ("tests/e2e/test_several_hosts.py",),
    ),
    Fault(
        "a slow line that loses every tenth packet; PostgreSQL's primary killed and its standby promoted",
        "no host is lost by it; one that is cut off at that moment is",
        ("tests/e2e/test_several_hosts.py",),
    ),
    Fault(
        "disk full while operations run",
        "clear error; rows wait with their lock held; goes on without a restart",
        ("test_a_full_disk",),
    ),
    Fault(
        "store file replaced under the daemons",
        "refused; both end with one line and status 3; their next life uses the new file",
        ("test_a_store_that_is_replaced",),
    ),
    Fault(
        "power loss while four processes write (copies at the acknowledgement; an ext4 disk cut off)",
        "every acknowledged row is there, the file is sound",
        ("test_copies_at", "test_a_disk_whose"),
    ),
    Fault(
        "power loss between a commit and its fdatasync",
        "the row was not acknowledged; an end was not seen; a claim is made again",
        ("test_what_a_power", "test_an_end_that_is_written", "test_a_claim_that_nobody"),
    ),
    Fault(
        "wall clock set a day ahead, a day back; suspend and resume",
        "no live row swept, no dead row missed, passes at their pace",
        ("test_clock.py",),
    ),
    Fault(
        "a wrapper around Compose that closes the descriptors that it inherits",
        "tried at the worker's start, refused with one line",
        ("test_wrappers.py",),
    ),
    Fault(
        "lines that a decoy prints to hold the worker up (a million characters), or with its secrets in them",
        "masked in one pass, no secret is left",
        ("test_masking.py",),
    ),
    Fault(
        "an error in a hook, a log call (no reader, full disk, stuck reader), a runtime, the state directory",
        "workers go on, the row says why, no line is lost",
        ("test_errors.py",),
    ),
    Fault(
        "Docker's engine restarted in mid-operation",
        "row failed with the engine's own words, the worker goes on, the next deploy succeeds",
        ("test_engine.py",),
    ),
    Fault(
        "cancel at the same moment as the end (50 times), as the claim (50 times), as the worker's death",
        "one end each, the operator hears which",
        (
            "test_cancel.py",
            "tests/worker/execution/test_work.py::test_a_cancel_while_survivors_are_being_ended_leaves_none",
        ),
    ),
    Fault(
        "a cancel accepted while a stopping worker's grace ends",
        "the row says cancelled, and is not retried",
        (f"{_CALLS}::test_a_cancel_that_was_accepted_wins_over_an_interruption",),
    ),
    Fault(
        "clocks that disagree, or step back between two processes that submit",
        "the order of acceptance is the store's; a repeated wish is never met by an older row",
        ("tests/repo/contract/test_order_of_acceptance.py",),
    ),
    Fault(
        "the id that a retry would get is taken",
        "it gets another one; the row is closed",
        (f"{_CALLS}::test_a_retry_whose_place_is_taken_gets_another_id",),
    ),
    Fault(
        "a write that the store refused, its line noted before",
        "no later sweep logs it",
        ("tests/reaper/sweep/test_sweeper.py::test_a_write_that_was_refused_is_not_logged_by_a_later_sweep",),
    ),
    Fault(
        "a row that no code of ours writes: times that are none, numbers as text, bytes",
        "the database refuses it; one that is there all the same is named and hides no other",
        (
            f"{_GUARDS}::test_an_insert_that_is_refused",
            f"{_GUARDS}::test_an_update_that_is_refused",
            "tests/repo/sqlite/test_files.py::test_a_row_that_cannot_be_read_hides_no_other",
        ),
    ),
    Fault(
        "`-wal` or `-shm` deleted under the daemons",
        "no row is acknowledged any more; the daemons end as with a store that was replaced",
        ("tests/repo/sqlite/test_files.py::test_a_log_that_was_deleted_acknowledges_no_more_rows",),
    ),
    Fault(
        "a background task of a daemon meets an error that nobody foresaw, or ends",
        "logged and started again; the others go on; the watchdog is fed only while all are well",
        (
            f"{_SKELETON}::test_a_task_that_ends_is_logged_and_started_again",
            f"{_SKELETON}::test_a_task_that_fails_leaves_the_others_alone",
            f"{_SKELETON}::test_the_watchdog_starves_while_a_task_is_unwell",
        ),
    ),
    Fault(
        "Docker's engine down at a worker's start; Compose not installed; neither, and `up`",
        "it waits, one line; refused; `up` says in a line that commands run as local processes",
        (
            f"{_RUNTIMES}::test_a_worker_waits_for_an_engine_that_does_not_answer",
            f"{_RUNTIMES}::test_a_worker_without_compose_does_not_start_and_runs_no_command_of_a_document",
            f"{_RUNTIMES}::test_up_says_that_deckies_are_local_processes",
        ),
    ),
    Fault(
        "a document that would be root on the host (`privileged`, mounts of `/`, `extends`, ...)",
        'with `document_policy = "decnet"` refused with the line that says what',
        ("tests/worker/documents/test_policy.py",),
    ),
    Fault(
        "lines in the journal that another user forged under our names, or with fields of any kind",
        "`logs` goes by the unit and passes them over; it shows every field somehow",
        (
            f"{_LOGS}::test_the_journal_is_asked_for_our_lines",
            f"{_LOGS}::test_fields_of_any_kind_are_shown_somehow",
        ),
    ),
    Fault(
        "standard output or error closed or full, of a command whose request was accepted, of a daemon",
        "the command says that it was accepted; a daemon never ends because of its log",
        (
            f"{_OPERATIONS}::test_what_is_accepted_is_said_where_standard_output_is_full",
            "tests/reaper/cli/output/test_streams.py",
        ),
    ),
    Fault(
        "a foreign row whose decky is called `a@b`, beside decky `a` of host `b`",
        "each has a lock of its own",
        ("tests/worker/liveness/test_locks.py::test_hosts_and_deckies_do_not_share_a_lock",),
    ),
    Fault(
        "DECNET's file with a name, a host or an id that the client would not take",
        "adoption refuses it with one line that names the row, and changes nothing",
        ("tests/repo/sqlite/test_adoption.py::test_a_row_that_nobody_understands_changes_nothing",),
    ),
    Fault(
        "five event streams of the example master on rows of a megabyte",
        "no document is read",
        ("tests/examples/test_master.py::test_who_looks_at_rows_loads_no_document",),
    ),
    Fault(
        "settings changed under the daemons (SIGHUP)",
        "those that can be are in force; the others are named",
        ("test_settings_are_read_again",),
    ),
    Fault(
        "bad names, hosts, documents, settings, DSNs, URLs, job bytes, command lines (hundreds, by property)",
        "one clear line each, nothing changed, no traceback",
        ("test_bad_input.py",),
    ),
    Fault(
        "random mixes of submits, claims, ends, kills, cancels, flushes and sweeps against a model",
        "the invariants hold after every step",
        ("test_random.py",),
    ),
)

INTRODUCTION = """\
# What every fault comes to

Made by `python -m benchmarks.faults{arguments}. Scenarios are names, or their beginnings, of tests.

Each scenario injects its fault into real processes. Where daemons ran, it ends with the auditor
(`tests/support/audit.py`) over store, locks, queue and log: no terminal row changed, no row claimed or ended
twice (the database keeps a history beside the rows for this), at most one running row a decky, every open row
has a holder or a job, and the log alone rebuilds the table.

A line follows its commit, and a process can be killed in between. What it was about to log is noted
(`unreported/` in the lock directory), and the next sweep of a reaper logs it. A process killed between a line
and its note of it leaves that one line to be logged again, with the same content: a reader that counts goes
by `lifecycle_id`. Not covered is `lifecycle.accepted` of a master that is killed right after its commit (the
worker's next line of the row has all of it).

A reaper that starts after the wall clock was set ahead can't know better than the clock: rows that waited
through it count as that much older.

The bounded part runs in `./run tests`. The long part: `./run tests -m long`.

"""


class Outcomes:
    """A pytest plugin that keeps how each test ended and how long it took."""

    def __init__(self) -> None:
        self.ended: dict[str, list[str]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for set-up, call and tear-down of each test."""
        name = report.nodeid.removeprefix("tests/faults/")
        self.seconds[name] += report.duration
        if report.when == "call" or report.outcome != "passed":
            self.ended[name].append(report.outcome)

    def row(self, fault: Fault) -> str:
        """One line of the table."""
        mine = [name for name in self.ended if any(part in fault.tests for part in _names(name, fault))]
        counts = [
            f"{sum(self.ended[name] == [outcome] for name in mine)} {outcome}"
            for outcome in ("passed", "skipped")
            if any(self.ended[name] == [outcome] for name in mine)
        ]
        if failed := [name for name in mine if self.ended[name] not in (["passed"], ["skipped"])]:
            counts.append(f"FAILED: {', '.join(failed)}")
        took = sum(self.seconds[name] for name in mine)
        return f"| {fault.what} | {fault.outcome} | {', '.join(counts) or 'NOT RUN'} | {took:.1f} |"


def _names(name: str, fault: Fault) -> list[str]:
    file, _, test = name.partition("::")
    return [file, name.partition("[")[0], *(part for part in fault.tests if test.startswith(part))]


def _elsewhere() -> list[str]:
    """The scenarios that are not in tests/faults, as pytest takes them."""
    return sorted({part for fault in FAULTS for part in fault.tests if part.startswith("tests/")})


def _named() -> Iterator[str]:
    yield "| fault | outcome | scenarios |\n|---|---|---|"
    for fault in FAULTS:
        scenarios = ", ".join(f"`{part.rpartition('::')[2].removeprefix('tests/')}`" for part in fault.tests)
        yield f"| {fault.what} | {fault.outcome} | {scenarios} |"


def main() -> int:
    """Run it and print the document; the exit status is pytest's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", action="store_true", help="the long scenarios too")
    parser.add_argument("--recovery", action="store_true", help="measure the recovery too (6 minutes)")
    parser.add_argument("--names", action="store_true", help="name the scenarios, run none")
    given = parser.parse_args()
    if given.names:
        print(INTRODUCTION.format(arguments=" --names > docs/faults.md`"), end="")
        print("\n".join(_named()))
        return 0
    outcomes = Outcomes()
    arguments = ["tests/faults", *_elsewhere(), *(["-m", "long or not long"] if given.long else [])]
    with contextlib.redirect_stdout(sys.stderr):
        status = int(pytest.main(arguments, plugins=[outcomes]))
    said = "".join(f" --{name}" for name in ("long", "recovery") if getattr(given, name))
    machine = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}"
    print(INTRODUCTION.format(arguments=f"{said}` on {machine}"), end="")
    print("| fault | outcome | scenarios | seconds |\n|---|---|---|---|")
    print("\n".join(map(outcomes.row, FAULTS)))
    if given.recovery:
        print("\n## Recovery\n\nAfter `kill -9` of a worker in mid-operation, at the default settings:\n")
        print("\n".join(asyncio.run(recovery.measure(30, arq=True))))
    return status


if __name__ == "__main__":
    sys.exit(main())
