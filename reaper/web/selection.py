"""Which rows an address asks for: `?decky=decky-01&state=failed&error=timeout&since=2h`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Self, get_args

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from repo.base import ANY_HOST, OPEN, TERMINAL, Lifecycle, Outcome, Status
from repo.history import EndedFilter
from repo.settings import Seconds

MASTER: Final = "-"
"""How an address names the master's own host, which has no id."""

_DAY: Final = "1d"
_LONGEST: Final = 200
_NAMES: Final = {"decky", "host", "state", "outcome", "error", "since", "until"}


class Selection(NamedTuple):
    """Which rows are wanted; an empty field means any.

    Attributes:
        decky: this decky's.
        host: this host's; None is the master's own.
        states: in these states.
        outcomes: that ended so.
        error: text that the error contains.
        since, until: ended between the two: a duration back from now, or an ISO 8601 time with its zone.
    """

    decky: str | None = None
    host: str | None = ANY_HOST
    states: Sequence[Status] = ()
    outcomes: Sequence[Outcome] = ()
    error: str = ""
    since: str = _DAY
    until: str = ""

    @classmethod
    def of(cls, query: QueryParams) -> Self:
        """Read an address.

        Raises:
            HTTPException: which part can't be used, and what would do.
        """
        given = {name: [text for text in query.getlist(name) if text] for name in query}
        if unknown := given.keys() - _NAMES:
            raise HTTPException(400, f"{min(unknown)[:40]!r}: expected {', '.join(sorted(_NAMES))}")
        one = {name: (texts or [""])[-1][:_LONGEST] for name, texts in given.items()}
        host = one.get("host") or ANY_HOST
        found = cls(
            decky=one.get("decky") or None,
            host=None if host == MASTER else host,
            states=_words("state", given, get_args(Status)),
            outcomes=_words("outcome", given, get_args(Outcome)),
            error=one.get("error", ""),
            since=one.get("since") or _DAY,
            until=one.get("until", ""),
        )
        found.ended(datetime.now(UTC), 0)  # its times can be read
        return found

    @property
    def open_states(self) -> list[Status]:
        """The states of open rows that are wanted; none where how they ended is asked for."""
        if self.outcomes or self.error or self.until:
            return []
        return [state for state in OPEN if not self.states or state in self.states]

    @property
    def wants_ended(self) -> bool:
        """Whether rows that have ended are wanted."""
        return not self.states or any(state in TERMINAL for state in self.states)

    def takes(self, row: Lifecycle) -> bool:
        """Whether an open row is wanted."""
        return (
            row["status"] in self.open_states
            and self.decky in (None, row["decky_name"])
            and self.host in (ANY_HOST, row["host_uuid"])
        )

    def ended(self, now: datetime, limit: int) -> EndedFilter:
        """What `list_ended` is to be asked."""
        return {
            "statuses": [state for state in self.states if state in TERMINAL],
            "outcomes": self.outcomes,
            "decky_name": self.decky,
            "host_uuid": self.host,
            "error": self.error,
            "since": _moment("since", self.since, now),
            "until": _moment("until", self.until, now) if self.until else None,
            "limit": limit,
        }


def _words(name: str, given: Mapping[str, list[str]], known: Sequence[str]) -> Any:
    words = given.get(name, [])
    if wrong := [word for word in words if word not in known]:
        raise HTTPException(400, f"{name} {wrong[0][:40]!r}: expected {', '.join(known)}")
    return words


def _moment(name: str, text: str, now: datetime) -> datetime:
    try:
        return now - timedelta(seconds=Seconds.parse(text))
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise HTTPException(
            400, f"{name} {text[:40]!r}: expected a duration back from now such as 2h, or an ISO 8601 time"
        ) from None
