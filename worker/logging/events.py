"""The event catalogue: every line that this system logs by itself, defined once.

docs/events.md has it for people (`./run docs` makes it); `emit.emit` writes one event.
"""

import logging
from typing import Final

from worker.logging.fields import Event

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

ROW_FIELDS: Final = ("lifecycle_id", "decky_name", "operation", "host_uuid", "attempt", "retry_of")
_ENDED: Final = (
    *ROW_FIELDS,
    "owner",
    "runtime",
    "outcome",
    "started_at",
    "claimed_at",
    "queue_wait_s",
    "duration_s",
    "error",
    "retry_id",
)

EVENTS: Final[dict[str, Event]] = {
    "lifecycle.accepted": Event(
        INFO,
        "a row was committed as pending; by who asked for it, retries by who closed the row before",
        "nothing",
        (*ROW_FIELDS, "started_at"),
    ),
    "lifecycle.running": Event(
        INFO,
        "a worker claimed the row",
        "nothing",
        (*ROW_FIELDS, "owner", "started_at", "claimed_at", "queue_wait_s"),
    ),
    "lifecycle.succeeded": Event(INFO, "the operation is done", "nothing", _ENDED),
    "lifecycle.failed": Event(
        ERROR, "the runtime reported a failure", "read the error; submit again once it is mended", _ENDED
    ),
    "lifecycle.timed_out": Event(
        ERROR,
        "the operation took longer than it may, and was ended",
        "look what it waited for; submit again, or raise `operation_timeout`",
        _ENDED,
    ),
    "lifecycle.interrupted": Event(
        WARNING,
        "a worker that was told to stop cut the operation short",
        "nothing where there is a `retry_id`; else submit again",
        _ENDED,
    ),
    "lifecycle.cancelled": Event(
        INFO, "an operator's cancel closed the row, a pending or a running one", "nothing", _ENDED
    ),
    "lifecycle.swept": Event(
        ERROR,
        "the reaper closed a row whose executor is gone",
        "look for the worker's death: `journalctl -u 'decnet-worker@*'`; follow `retry_id`",
        _ENDED,
    ),
    "lifecycle.expired": Event(
        ERROR,
        "the reaper closed a row that nobody started in time",
        "look whether a worker of its host runs; submit again",
        _ENDED,
    ),
    "lifecycle.lost": Event(
        ERROR, "the row's host was lost", "look after the host; follow `retry_id`", _ENDED
    ),
    "lifecycle.cancel_requested": Event(
        INFO, "an operator asked for a running operation to be ended", "nothing", ("lifecycle_id",)
    ),
    "lifecycle.redelivered": Event(
        WARNING,
        "a pending row was enqueued again, since no job of it was queued",
        "if often: look whether Redis loses data, or whether workers run at all",
        (*ROW_FIELDS, "delivery"),
    ),
    "lifecycle.overdue": Event(
        WARNING,
        "an operation is past its deadline and its worker has not ended it",
        "look at the worker; it is ended after the grace period",
        (*ROW_FIELDS, "owner", "overdue_s"),
    ),
    "lifecycle.postponed": Event(
        WARNING,
        "a worker could not begin, since something is short or can't be used; it is tried again",
        "read the reason: free descriptors, memory or processes, or mend the lock file",
        (*ROW_FIELDS, "reason"),
    ),
    "lifecycle.not_assessed": Event(
        WARNING,
        "the reaper can't judge an open row and leaves it (once for each reason)",
        "read the reason",
        (*ROW_FIELDS, "owner", "reason"),
    ),
    "lifecycle.late_write_refused": Event(
        WARNING,
        "a worker came to end a row that is not its own any more; nothing was changed",
        "the worker was cut off for long: look for a stopped process or a lost lock",
        (*ROW_FIELDS, "owner", "status", "refused_error"),
    ),
    "lifecycle.survivors_ended": Event(
        WARNING,
        "processes that outlived their operation or its worker were killed",
        "nothing",
        (*ROW_FIELDS, "pids"),
    ),
    "lifecycle.unknown": Event(
        WARNING,
        "a job named a row that is not in the store, or another host's",
        "look who writes to Redis",
        ("lifecycle_id",),
    ),
    "runtime.output": Event(
        DEBUG,
        "what the runtime did, or a line that its child printed",
        "nothing",
        ("lifecycle_id", "decky_name", "line"),
    ),
    "queue.job_refused": Event(
        WARNING, "a job that we did not write was dropped", "look who writes to Redis", ("job_id", "reason")
    ),
    "queue.unreachable": Event(
        ERROR,
        "Redis can't be used (once per outage)",
        "mend Redis; nothing is lost, work goes on",
        ("redis", "reason"),
    ),
    "queue.recovered": Event(INFO, "Redis is back", "nothing", ("redis", "down_s")),
    "store.unavailable": Event(
        ERROR,
        "the store refused a write for now; it is tried again",
        "free space, or end the process that locks the file",
        ("reason",),
    ),
    "host.lost": Event(
        ERROR,
        "no daemon of a host was seen for `host_lost_after`, or an operator gave it up; its running rows are"
        " closed as lost",
        "look after the host and its network; its rows wait or are retried, and run when it is back",
        ("host_uuid", "absent_s"),
    ),
    "host.returned": Event(
        INFO, "a host that was lost is back, and puts things right", "nothing", ("host_uuid", "lost_s")
    ),
    "presence.lost": Event(
        WARNING,
        "a daemon's session that has to do with presence ended or can't be opened (once); it tries again",
        "read the reason; if it stays so, others take this host for lost, or this reaper finds no host lost",
        ("session", "reason"),
    ),
    "presence.recovered": Event(INFO, "it is open again", "nothing", ("session", "down_s")),
    "runtime.unreachable": Event(
        ERROR,
        "a worker starts, and what its runtime needs (Docker's engine) doesn't answer; it waits for it",
        "start the engine, or give the worker's user its socket; rows wait, nothing is lost",
        ("runtime", "reason"),
    ),
    "runtime.recovered": Event(
        INFO, "it answers now, and the worker begins", "nothing", ("runtime", "down_s")
    ),
    "worker.started": Event(
        INFO,
        "a worker is ready",
        "nothing",
        ("owner", "pid", "runtime", "max_jobs", "database", "redis", "host_uuid"),
    ),
    "worker.stopping": Event(INFO, "a worker was told to stop", "nothing", ("owner", "running")),
    "worker.stopped": Event(INFO, "a worker has stopped", "nothing", ("owner",)),
    "worker.job_crashed": Event(
        ERROR,
        "a job raised what it should not; its row is left to the reaper",
        "read the reason, and if it isn't the store that was away, report it",
        ("job_id", "reason"),
    ),
    "worker.loop_failed": Event(
        ERROR, "the queue's loop met an error that is not Redis's; it goes on", "report it", ("reason",)
    ),
    "reaper.started": Event(
        INFO, "a reaper is ready", "nothing", ("pid", "interval_s", "database", "redis", "host_uuid")
    ),
    "reaper.stopped": Event(INFO, "a reaper has stopped", "nothing", ("pid",)),
    "reaper.swept": Event(
        INFO,
        "a sweep that did something",
        "nothing",
        ("trigger", "rows", "failed", "retried", "redelivered", "ended", "pruned", "duration_s"),
    ),
    "reaper.watching": Event(
        INFO,
        "once at the start, then once a minute: the reaper's sign of life, and how things stand",
        "if it stays away, look at the reaper",
        ("pending", "running", "oldest_pending_s", "queue_up"),
    ),
    "reaper.sweep_failed": Event(
        ERROR,
        "a sweep could not be finished; the next one tries again",
        "read the reason",
        ("trigger", "reason"),
    ),
    "web.started": Event(
        INFO,
        "the live page can be opened",
        "nothing",
        ("pid", "listen", "actions", "database", "redis"),
    ),
    "web.exposed": Event(
        WARNING,
        "the live page listens on an address that other machines can reach",
        "whoever reaches it reads every row: put a proxy with TLS and a login before it",
        ("listen",),
    ),
    "web.acted": Event(
        INFO,
        "somebody had the live page cancel, retry or tear down; what came of it has a line of its own",
        "nothing",
        (*ROW_FIELDS, "action", "who", "address", "forwarded_for"),
    ),
    "web.refused": Event(
        WARNING,
        "the live page was asked to act, and refused",
        "read the reason; if it was none of your people, look who can reach the page",
        ("lifecycle_id", "action", "reason", "address", "forwarded_for"),
    ),
    "web.stopped": Event(INFO, "the live page has stopped", "nothing", ("pid",)),
    "daemon.task_failed": Event(
        ERROR,
        "a task in a daemon met an error that nobody foresaw; it is started again",
        "report it; a daemon whose task stays unwell is restarted by systemd's watchdog",
        ("task", "reason"),
    ),
    "daemon.reloaded": Event(
        INFO,
        "a daemon read its settings again (SIGHUP)",
        "restart it if a setting that you changed is among those that need it",
        ("changed", "needs_restart"),
    ),
    "daemon.reload_failed": Event(
        ERROR, "the settings can't be used; the old ones stay in force", "mend the settings", ("reason",)
    ),
    "daemon.failed": Event(
        ERROR,
        "a daemon could not start, or met an error that nobody foresaw, and ends",
        "read the reason; status 2: mend the settings; 3: what it needs is missing; 1: report it",
        ("exit_status", "reason"),
    ),
}
