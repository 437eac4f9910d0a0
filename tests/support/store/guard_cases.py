"""What every store refuses, whoever writes and with whichever verb."""

from typing import Any

NOW = "2026-05-04 10:11:12.123456"
ROW = {
    "id": "new",
    "decky_name": "d9",
    "operation": "deploy",
    "status": "pending",
    "started_at": NOW,
    "updated_at": NOW,
}

INSERTS: list[dict[str, Any]] = [
    {"operation": "destroy"},
    {"operation": None},
    {"status": "lost"},
    {"status": "succeeded"},
    {"status": "failed", "error": "x"},
    {"completed_at": NOW},
    {"status": "running", "completed_at": NOW},
    {"error": "x"},
    {"status": "succeeded", "completed_at": NOW, "error": "x"},
    {"id": None},
    {"decky_name": None},
    {"started_at": None},
    {"payload": "[1]"},
    {"attempt": 0},
    {"deliveries": -1},
    {"outcome": "succeeded"},
    {"outcome": "swept"},
    {"status": "succeeded", "completed_at": NOW, "outcome": "failed"},
    {"status": "failed", "completed_at": NOW, "outcome": "succeeded"},
    {"status": "failed", "completed_at": NOW, "outcome": "gone"},
    {"id": "pending"},
    {"id": "succeeded"},
    {"status": "running", "decky_name": "d2"},
    {"status": "running", "decky_name": "d2", "host_uuid": ""},
]
"""Columns that a new row can't have, beside `ROW` and the rows that are there."""

UPDATES = [
    ("succeeded", "status = 'running', completed_at = NULL", "nothing leaves a terminal row"),
    ("succeeded", "status = 'failed'", "nothing leaves a terminal row"),
    ("succeeded", "updated_at = '2027-01-01'", "nothing leaves a terminal row"),
    ("succeeded", "status = status", "nothing leaves a terminal row"),
    ("failed", "error = 'other'", "nothing leaves a terminal row"),
    ("failed", "owner = 'me'", "nothing leaves a terminal row"),
    ("failed", "retry_id = 'me'", "nothing leaves a terminal row"),
    ("running", "status = 'pending'", "a running row never becomes pending again"),
    ("running", "status = 'succeeded'", "completed_at_on_terminal_rows"),
    ("running", "id = 'other'", "id, decky_name, host_uuid and operation never change"),
    ("running", "id = 'pending'", "id, decky_name, host_uuid and operation never change"),
    ("running", "decky_name = 'd1'", "id, decky_name, host_uuid and operation never change"),
    ("running", "host_uuid = 'host-1'", "id, decky_name, host_uuid and operation never change"),
    ("running", "operation = 'mutate'", "id, decky_name, host_uuid and operation never change"),
    (
        "waiting",
        "status = 'running'",
        "another operation is running on this decky|decky_lifecycle_running",
    ),
    ("pending", "error = 'x'", "error_on_failed_rows"),
    ("pending", "completed_at = started_at", "completed_at_on_terminal_rows"),
]
"""Which row, the change that is refused, and why."""

ROWS: list[dict[str, Any]] = [
    {"id": "pending", "decky_name": "d1"},
    {"id": "running", "decky_name": "d2", "status": "running"},
    {"id": "waiting", "decky_name": "d2"},
    {"id": "succeeded", "decky_name": "d3", "status": "succeeded", "completed_at": NOW},
    {"id": "failed", "decky_name": "d4", "status": "failed", "completed_at": NOW, "error": "boom"},
]
"""One row in each state, and a second open one on the decky that is busy."""
