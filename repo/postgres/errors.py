"""What PostgreSQL's errors mean to a person: one place that turns them into the store's own."""

import psycopg

from repo.errors import (
    InvalidLifecycle,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnreachable,
    StoreUnusable,
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONSTRAINT = "23"
_LOCK_NOT_AVAILABLE = "55P03"
_ROW_TWICE = "21000"  # by one INSERT ... ON CONFLICT
_AGAIN = {"40001", "40P01"}  # serialization failure, deadlock: all was rolled back, and may be tried again
# the connection, the server behind it, or its patience with a session that idled
_GONE = ("08", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "53300")

# The server says why it takes no session in words only, which may be another language's.
_HINTS = {
    "password": "check the user and the password (URL, PGPASSFILE or credential database_password)",
    "pg_hba": "the server's pg_hba.conf admits no such session: add a line for it, and reload the server",
    "role ": "make that role, or name another user",
    "database ": "make it with `createdb`, or name another database",
    "starting up": "nothing needs a restart",
    "clients": "raise the server's max_connections, or end sessions that nobody needs",
    "connection slots": "raise the server's max_connections, or end sessions that nobody needs",
    "certificate": "check sslmode, sslrootcert, sslcert and sslkey",
}


def is_refusal(error: Exception) -> bool:
    """Whether only this write has failed: a constraint or a guard refused it, or somebody held its row."""
    state = _state(error)
    return state.startswith(_CONSTRAINT) or state in {_LOCK_NOT_AVAILABLE, _ROW_TWICE}


def is_repeatable(error: Exception) -> bool:
    """Whether the server took the whole transaction back for the sake of another one."""
    return _state(error) in _AGAIN


def is_lost(error: Exception) -> bool:
    """Whether the session is over, so that nobody knows what became of a commit under way."""
    if state := _state(error):
        return state.startswith(_GONE)
    return isinstance(error, psycopg.OperationalError)


def first_line(error: Exception) -> str:
    """What the driver or the server says, on one line and without their hints."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("Is the server", "- ", "Multiple conn"))]
    text = (useful or lines or [type(error).__name__])[0]
    return text.removeprefix("connection failed: ").removeprefix("FATAL:  ").rstrip(".")


def explained(error: Exception, name: str) -> StoreError:
    """The store's own error for one that psycopg raised.

    Args:
        error: as psycopg raised it.
        name: of the store, without any secret.
    """
    reason = first_line(error)
    match _state(error):
        case "55P03":
            return StoreBusy(f"{name}: another session holds this row; see pg_stat_activity, then try again")
        case "57014":
            return StoreBusy(
                f"{name}: a statement took longer than the server's statement_timeout; try again"
            )
        case "40001" | "40P01":
            return StoreBusy(f"{name}: other sessions wrote the same rows at once; try again")
        case "53100":
            return StoreFull(f"{name}: no space is left on the server ({reason}); free some, restart nothing")
        case "25006":
            return StoreUnusable(
                f"{name}: takes no writes (a standby, or read-only); name the primary, or all servers with"
                " target_session_attrs=read-write"
            )
        case "42501":
            return StoreUnusable(f"{name}: this role may not do that ({reason})")
    if isinstance(error, psycopg.DataError):
        return InvalidLifecycle(f"a value that the store can't hold: {reason}")
    if is_lost(error):
        return StoreUnreachable(f"{name}: {_unreachable(reason)}")
    return StoreUnusable(f"{name}: PostgreSQL refused ({reason})")


def _unreachable(reason: str) -> str:
    hints = [hint for word, hint in _HINTS.items() if word in reason]
    return f"{reason}; {hints[0]}" if hints else reason


def _state(error: Exception) -> str:
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
