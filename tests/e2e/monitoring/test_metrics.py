"""What mtail makes of the log."""

import json
from pathlib import Path

from tests.support.needs import need
from tests.support.programs.monitoring_programs import PROGRAM, metrics_of
from worker.logging.events import EVENTS
from worker.logging.fields import FIELDS

RECORDED = Path(__file__).with_name("recorded.log")
REDIS = "unix:///run/decnet-reaper/queue.sock?db=0"

# Counted by hand. The log holds a mixed run (mixed_run.py), then a line of each rarer kind, systemd's own
# words, a traceback, and an error in which a decky has printed lines of a log.
EXPECTED = {
    "decnet_operations_ended_total": 17,
    "decnet_operations_total{deploy, succeeded}": 6,
    "decnet_operations_total{deploy, failed}": 2,
    "decnet_operations_total{deploy, cancelled}": 1,
    "decnet_operations_total{deploy, interrupted}": 1,
    "decnet_operations_total{deploy, swept}": 2,
    "decnet_operations_total{deploy, timed_out}": 1,
    "decnet_operations_total{deploy, lost}": 1,
    "decnet_operations_total{mutate, succeeded}": 1,
    "decnet_operations_total{mutate, failed}": 1,
    "decnet_operations_total{mutate, expired}": 1,
    "decnet_operations_failed_total": 4,
    "decnet_operations_swept_total": 3,
    "decnet_operations_lost_total": 1,
    "decnet_hosts_lost_total": 1,
    "decnet_hosts_returned_total": 1,
    "decnet_presence_lost_total{observer}": 1,
    "decnet_operations_retried_total": 3,
    "decnet_swept_by_cause_total{worker died}": 1,
    "decnet_swept_by_cause_total{master restarted}": 1,
    "decnet_swept_by_cause_total{not started}": 1,
    "decnet_swept_by_cause_total{host lost}": 1,
    "decnet_operation_duration_seconds_count{deploy, succeeded}": 6,
    "decnet_operation_duration_seconds_sum{deploy, failed}": 61.019,
    "decnet_operation_duration_seconds_sum{deploy, swept}": 3.733,
    "decnet_queue_wait_seconds_count{deploy}": 10,
    "decnet_queue_wait_seconds_count{mutate}": 2,
    "decnet_redelivered_total": 2,
    "decnet_overdue_total": 1,
    "decnet_late_writes_refused_total": 1,
    "decnet_survivors_ended_total": 1,
    "decnet_jobs_refused_total": 2,
    "decnet_open_rows{pending}": 3,
    "decnet_open_rows{running}": 2,
    "decnet_oldest_pending_seconds": 947.25,
    "decnet_reaper_seen_timestamp_seconds": 1795456800,
    "decnet_reaper_passes_total{backstop}": 1,
    "decnet_reaper_passes_total{cron}": 1,
    "decnet_reaper_passes_failed_total": 1,
    "decnet_reaper_pass_duration_seconds_count": 2,
    f"decnet_redis_down{{{REDIS}}}": 1,
    "decnet_redis_outages_total": 3,
    "decnet_store_unavailable_total": 1,
    "decnet_workers_started_total": 4,
    "decnet_workers_stopped_total": 3,
    "decnet_daemons_failed_total": 1,
    "decnet_unit_restarts_total{decnet-worker@1.service}": 3,
    "decnet_unit_restarts_all_total": 3,
    "decnet_errors_total{lifecycle.failed}": 3,
    "decnet_errors_total{lifecycle.swept}": 2,
}


def test_a_recorded_log_gives_the_expected_numbers() -> None:
    need("mtail")
    found = metrics_of(RECORDED)
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED


def test_the_recorded_log_is_what_is_logged_today() -> None:
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines() if line.startswith("{")]
    assert len(lines) > 50
    for line in lines:
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert list(line)[3:] == list(EVENTS[line["event"]].fields)
        assert all(isinstance(line[name], FIELDS[name].kind) for name in EVENTS[line["event"]].fields)


def test_every_counter_stands_at_zero_before_anything_happens(tmp_path: Path) -> None:
    need("mtail")
    empty = tmp_path / "empty.log"
    empty.touch()
    found = metrics_of(empty)
    declared = [line.split() for line in PROGRAM.read_text().splitlines()]
    plain = {words[1] for words in declared if words[:1] == ["counter"] and len(words) == 2}
    assert plain
    assert {name: found[name] for name in plain} == dict.fromkeys(plain, 0)
