"""What an SQLite store refuses, whoever writes: constraints and triggers, for the migrations."""

from collections.abc import Iterator

from sqlalchemy import CheckConstraint

from repo.migrations.checks import common_checks

SAME_DECKY = "coalesce(host_uuid, '') = coalesce(NEW.host_uuid, '') AND decky_name = NEW.decky_name"
ANOTHER_RUNS = f"EXISTS (SELECT 1 FROM decky_lifecycle WHERE status = 'running' AND {SAME_DECKY})"  # noqa: S608

# What is refused, by kind of statement. It must also hold against OR REPLACE, which would delete the row in
# its way without asking any other trigger or index, by rowid too; NEW.rowid is -1 where none was given.
REFUSED = {
    "UPDATE": {
        "nothing leaves a terminal row": "OLD.status NOT IN ('pending', 'running')",
        "a running row never becomes pending again": "OLD.status = 'running' AND NEW.status = 'pending'",
        "id, decky_name, host_uuid and operation never change": (
            "NEW.id IS NOT OLD.id OR NEW.decky_name IS NOT OLD.decky_name"
            " OR NEW.host_uuid IS NOT OLD.host_uuid OR NEW.operation IS NOT OLD.operation"
            " OR NEW.rowid IS NOT OLD.rowid"
        ),
        "another operation is running on this decky": (
            f"NEW.status = 'running' AND OLD.status <> 'running' AND {ANOTHER_RUNS}"
        ),
    },
    "INSERT": {
        "this id is taken": "EXISTS (SELECT 1 FROM decky_lifecycle WHERE id = NEW.id OR rowid = NEW.rowid)",
        "another operation is running on this decky": f"NEW.status = 'running' AND {ANOTHER_RUNS}",
    },
    "DELETE": {
        "only a terminal row may be deleted": "OLD.status IN ('pending', 'running')",
    },
}

_TIME = (
    "[1-9][0-9][0-9][0-9]-[0-1][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
    ".[0-9][0-9][0-9][0-9][0-9][0-9]"
)


def lifecycle_checks() -> list[CheckConstraint]:
    """What a row of `decky_lifecycle` must be."""
    return [
        *common_checks(),
        CheckConstraint(
            "payload IS NULL OR (json_valid(payload) AND json_type(payload) = 'object')", "payload_is_object"
        ),
        CheckConstraint("typeof(attempt) = 'integer' AND attempt >= 1", "attempt_is_number"),
        CheckConstraint("typeof(deliveries) = 'integer' AND deliveries >= 0", "deliveries_is_number"),
        *(_is_text(name) for name in ("id", "decky_name", "host_uuid", "error", "owner")),
        *(_is_time(name) for name in ("started_at", "updated_at", "completed_at")),
        *(_is_time(name) for name in ("claimed_at", "enqueued_at", "cancel_requested_at")),
    ]


def deployed_checks() -> list[CheckConstraint]:
    """What a row of `decky_deployed` must be."""
    return [
        CheckConstraint("json_valid(document) AND json_type(document) = 'object'", "document_is_object"),
        CheckConstraint("json_valid(services) AND json_type(services) = 'array'", "services_is_array"),
        _is_time("updated_at"),
    ]


def triggers() -> Iterator[str]:
    """One for each kind of statement: each trigger of its own would cost every write some microseconds."""
    for statement, rules in REFUSED.items():
        broken = " OR ".join(f"({rule})" for rule in rules.values())
        which = " ".join(f"WHEN {rule} THEN RAISE(ABORT, '{message}')" for message, rule in rules.items())
        yield (
            f"CREATE TRIGGER decky_lifecycle_{statement.lower()} BEFORE {statement} ON decky_lifecycle"
            f" WHEN {broken} BEGIN SELECT CASE {which} END; END"
        )


def _is_text(name: str) -> CheckConstraint:
    return CheckConstraint(f"{name} IS NULL OR typeof({name}) = 'text'", f"{name}_is_text")


def _is_time(name: str) -> CheckConstraint:
    """The one form that sorts as time does; SQLite turns a day that is none into another one."""
    second = f"substr({name}, 1, 19)"
    shaped = (
        f"typeof({name}) = 'text' AND {name} GLOB '{_TIME}' AND datetime({second}, '+0 days') IS {second}"
    )
    return CheckConstraint(f"{name} IS NULL OR ({shaped})", f"{name}_is_time")
