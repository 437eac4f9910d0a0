"""What each running operation printed last, kept in Redis for whoever waits for it.

It is for eyes only: lines are dropped while Redis is away or slow, and no operation ever waits for one to be
sent. The newest line is kept, no stream published, so that who begins to look in the middle sees what is
being done, however long ago that began.
"""

import asyncio

from worker.queue import Queue, QueueUnavailable

MAX_LINE = 500
"""Characters of a line that are kept."""

_EVERY_S = 0.25
"""Between two lines that are sent; what ends sooner than that sends none."""
_MOST_BEGUN = 100
"""Things of one operation that are remembered as not done yet."""


class Progress:
    """The newest lines of a worker's operations, sent together and behind their backs.

    Args:
        queue: whose Redis keeps them.
        host_uuid: whose operations these are.
    """

    def __init__(self, queue: Queue, host_uuid: str | None) -> None:
        self._queue = queue
        self._host_uuid = host_uuid
        self._news: dict[str, str] = {}
        self._begun: dict[str, dict[str, str]] = {}
        self._sending: asyncio.Task[None] | None = None

    def line(self, lifecycle_id: str, line: str) -> None:
        """This is what the operation does now. Costs nothing and never fails."""
        self._news[lifecycle_id] = self._still_done(lifecycle_id, line[:MAX_LINE])
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    def end(self, lifecycle_id: str) -> None:
        """The operation has ended: what it printed last needs no sending any more."""
        self._news.pop(lifecycle_id, None)
        self._begun.pop(lifecycle_id, None)

    def _still_done(self, lifecycle_id: str, line: str) -> str:
        """The line; where it says that one of several things is done, the line of one that is not.

        Compose does many at once: `Container a  Waiting`, `Container b  Waiting`, `Container a  Healthy`.
        """
        begun = self._begun.setdefault(lifecycle_id, {})
        *subject, state = line.split() or [""]
        done = begun.pop(" ".join(subject), None)
        if state.endswith("ing"):
            begun[" ".join(subject)] = line
            if len(begun) > _MOST_BEGUN:
                del begun[next(iter(begun))]
        return next(reversed(begun.values()), line) if done else line

    async def _send(self) -> None:
        while self._news:
            await asyncio.sleep(_EVERY_S)
            news, self._news = self._news, {}
            try:
                await self._queue.put_lines(self._host_uuid, news)
            except QueueUnavailable:
                continue
