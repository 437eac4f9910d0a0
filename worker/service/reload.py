"""Reading the settings again on SIGHUP: what can change does, the rest needs a restart."""

from typing import TypeVar

import msgspec

from repo.settings import SettingsError, load
from worker.logging.emit import emit
from worker.logging.setup import configure
from worker.settings import WorkerSettings

S = TypeVar("S", bound=WorkerSettings)

CHANGEABLE = frozenset(
    (
        *("log_level", "log_format", "max_attempts", "operation_timeout", "stop_grace"),
        *("pending_ttl", "stale_after", "overdue_grace", "host_lost_after", "retention"),
    )
)


def reread(settings: S) -> S:
    """The settings as they are to be from now on; logs what changed and what could not.

    Args:
        settings: those in force. They stay where the new ones can't be used.
    """
    try:
        wanted = load(type(settings), strict=True)
    except SettingsError as error:
        emit("daemon.reload_failed", reason=str(error))
        return settings
    names = [field.name for field in msgspec.structs.fields(settings)]
    differing = [name for name in names if getattr(wanted, name) != getattr(settings, name)]
    changed = {name: getattr(wanted, name) for name in differing if name in CHANGEABLE}
    settings = msgspec.structs.replace(settings, **changed)
    configure(settings)
    needs_restart = [name for name in differing if name not in CHANGEABLE]
    emit("daemon.reloaded", changed=", ".join(changed), needs_restart=", ".join(needs_restart))
    return settings
