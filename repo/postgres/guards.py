"""What a PostgreSQL store refuses, whoever writes: constraints and triggers, for the migrations."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import CheckConstraint

OPEN = "status IN ('pending', 'running')"


def lifecycle_checks() -> list[CheckConstraint]:
    """What a row of `decky_lifecycle` must be, beyond the types of its columns."""
    return [
        CheckConstraint("operation IN ('deploy', 'mutate', 'teardown')", "operation"),
        CheckConstraint("status IN ('pending', 'running', 'succeeded', 'failed')", "status"),
        CheckConstraint(
            "outcome IS NULL OR (outcome = 'succeeded' AND status = 'succeeded')"
            " OR (status = 'failed' AND outcome IN ('failed', 'timed_out', 'cancelled', 'interrupted',"
            " 'swept', 'expired', 'lost'))",
            "outcome_fits_status",
        ),
        CheckConstraint(f"(completed_at IS NULL) = ({OPEN})", "completed_at_on_terminal_rows"),
        CheckConstraint("error IS NULL OR status = 'failed'", "error_on_failed_rows"),
        CheckConstraint("payload IS NULL OR jsonb_typeof(payload) = 'object'", "payload_is_object"),
        CheckConstraint("attempt >= 1", "attempt_is_number"),
        CheckConstraint("deliveries >= 0", "deliveries_is_number"),
    ]


def deployed_checks() -> list[CheckConstraint]:
    """What a row of `decky_deployed` must be."""
    return [
        CheckConstraint("jsonb_typeof(document) = 'object'", "document_is_object"),
        CheckConstraint("jsonb_typeof(services) = 'array'", "services_is_array"),
    ]


def triggers() -> Iterator[str]:
    """Triggers, and the functions, tables and policies that go with them, as psql would read them."""
    yield (Path(__file__).parent / "guards.sql").read_text()
