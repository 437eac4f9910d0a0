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
