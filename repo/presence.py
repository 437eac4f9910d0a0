"""What is known of a host's presence, whichever store knows it."""

from typing import NamedTuple


class Sighting(NamedTuple):
    """What an observer knows of a host.

    Attributes:
        present: whether one of its daemons has its session.
        absent_for: seconds that it was seen to be absent, within the observer's session.
        lost: whether that is `lost_after` or longer, or somebody has said so since it was last there.
    """

    present: bool
    absent_for: float = 0.0
    lost: bool = False


class Returned(NamedTuple):
    """A host that had been lost and is back.

    Attributes:
        host_uuid: which; None is the master's own.
        lost_for: seconds, by the server's wall clock.
    """

    host_uuid: str | None
    lost_for: float
