"""What a row must be on every engine, as CHECKs; the words come from `repo.lifecycle`."""

from collections.abc import Iterable

from sqlalchemy import CheckConstraint

from repo.lifecycle import OPEN, OPERATIONS, OUTCOMES, TERMINAL


def common_checks() -> list[CheckConstraint]:
    """Those of `decky_lifecycle` that both engines say in the same words."""
    failures = [outcome for outcome in OUTCOMES if outcome != "succeeded"]
    return [
        CheckConstraint(_one_of("operation", OPERATIONS), "operation"),
        CheckConstraint(_one_of("status", OPEN + TERMINAL), "status"),
        CheckConstraint(
            "outcome IS NULL OR (outcome = 'succeeded' AND status = 'succeeded')"
            f" OR (status = 'failed' AND {_one_of('outcome', failures)})",
            "outcome_fits_status",
        ),
        CheckConstraint(
            f"(completed_at IS NULL) = ({_one_of('status', OPEN)})", "completed_at_on_terminal_rows"
        ),
        CheckConstraint("error IS NULL OR status = 'failed'", "error_on_failed_rows"),
    ]


def _one_of(column: str, words: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"
