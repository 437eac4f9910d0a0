"""What a PostgreSQL store refuses, whoever writes: constraints and triggers, for the migrations."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import CheckConstraint

from repo.migrations.checks import common_checks


def lifecycle_checks() -> list[CheckConstraint]:
    """What a row of `decky_lifecycle` must be, beyond the types of its columns."""
    return [
        *common_checks(),
        CheckConstraint("payload IS NULL OR jsonb_typeof(payload) = 'object'", "payload_is_object"),
        CheckConstraint("attempt >= 1", "attempt_is_number"),
        CheckConstraint("deliveries >= 0", "deliveries_is_number"),
        _are_times(
            "started_at", "updated_at", "completed_at", "claimed_at", "enqueued_at", "cancel_requested_at"
        ),
    ]


def deployed_checks() -> list[CheckConstraint]:
    """What a row of `decky_deployed` must be."""
    return [
        CheckConstraint("jsonb_typeof(document) = 'object'", "document_is_object"),
        CheckConstraint("jsonb_typeof(services) = 'array'", "services_is_array"),
        CheckConstraint(
            "NOT jsonb_path_exists(services, 'strict $[*] ? (@.type() != \"string\")', '{}', true)",
            "services_are_text",
        ),
        _are_times("updated_at"),
    ]


def triggers() -> Iterator[str]:
    """Triggers, and the functions, tables and policies that go with them, as psql would read them."""
    yield (Path(__file__).parent / "guards.sql").read_text()


def _are_times(*names: str) -> CheckConstraint:
    """Not infinity, and no year that ISO 8601 writes in more or fewer than four digits; one CHECK for all."""
    listed = ", ".join(names)
    return CheckConstraint(
        f"least({listed}) >= '1000-01-01 UTC' AND greatest({listed}) < '9999-12-31 UTC'", "times_are_dates"
    )
