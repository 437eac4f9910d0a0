"""What the reaper needs to know, on top of what a worker does."""

from repo.settings import Seconds, SecondsOrNever, SettingsError, load
from worker.settings import WorkerSettings

__all__ = ["ReaperSettings", "Seconds", "SettingsError", "load"]


class ReaperSettings(WorkerSettings, frozen=True, kw_only=True):
    """Settings of the reaper; the command line reads all settings through this class.

    Attributes:
        reap_interval: seconds between two sweeps.
        pending_ttl: seconds after which a row that nobody started is given up.
        stale_after: seconds after which an open row on a host that can't be seen from here is given up.
        overdue_grace: seconds that an operation may be past its deadline before its worker is ended.
        host_lost_after: seconds without any daemon of a host after which the host is lost, and its running
            rows with it; or `never`. Only where the store is PostgreSQL.
        retention: seconds that a terminal row is kept.
        web_tokens: who may act on the live page (`web --actions`), a line NAME:TOKEN for each; better a
            systemd credential.
    """

    reap_interval: Seconds = Seconds(2)
    pending_ttl: Seconds = Seconds(3600)
    stale_after: Seconds = Seconds(3600)
    overdue_grace: Seconds = Seconds(30)
    host_lost_after: SecondsOrNever = SecondsOrNever(30)
    retention: Seconds = Seconds(30 * 86400)
    web_tokens: str = ""
