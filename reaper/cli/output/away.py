"""Which hosts are not there, for whoever shows their open rows."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from repo.base import OPEN, BaseRepository, Host, Lifecycle

Away = Mapping[str | None, str]
"""`absent`, `lost` or `never seen`, for each host that is not present."""

NONE_AWAY: Final[Away] = MappingProxyType({})


async def hosts_away(repository: BaseRepository) -> Away:
    """Ask which; none where the store is a file, or for a role that may not ask."""
    return {
        host["host_uuid"]: state_of(host) for host in await repository.list_hosts() if not host["present"]
    }


def state_of(host: Host) -> str:
    """`present`, `absent`, `lost` or `never seen`."""
    if host["present"]:
        return "present"
    if host["lost_at"] is not None:
        return "lost"
    return "never seen" if host["seen_at"] is None else "absent"


def state_with_host(row: Lifecycle, away: Away) -> str:
    """A row's state; of an open one also that its host is not there."""
    host = away.get(row["host_uuid"]) if row["status"] in OPEN else None
    return row["status"] if host is None else f"{row['status']}, host {host}"
