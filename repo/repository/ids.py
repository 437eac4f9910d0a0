"""Ids whose order is the order of acceptance: UUID version 7 (RFC 9562)."""

import os
import threading
import time
from random import Random
from uuid import UUID

_RANDOM_BITS = 62
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1
_random = Random()  # noqa: S311 - an id is no secret, and the kernel's random numbers cost more than all else here
os.register_at_fork(after_in_child=_random.seed)
_CENTURY = 100 * 365 * 86_400_000 >> 16  # of the first 32 bits, which count 65.536 s
_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new id, greater than every id that this process made before, even when the clock steps back.

    The 12 bits behind the millisecond hold its fraction (RFC 9562, section 6.2, method 3), so that ids of
    several processes sort by time to a quarter of a microsecond.
    """
    global _last
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    now = milliseconds << 12 | (nanoseconds << 12) // 1_000_000
    with _lock:
        _last = now = max(now, _last + 1)
    return _text(now, _random.getrandbits(_RANDOM_BITS))


def follow(lifecycle_id: str, ahead: int = 0) -> None:
    """Let every new id of this process be greater than this one, which somebody else accepted.

    Args:
        lifecycle_id: a version 7.
        ahead: milliseconds to leave for what others accept meanwhile.
    """
    global _last
    with _lock:
        _last = max(
            _last, int(lifecycle_id[:8] + lifecycle_id[9:13] + lifecycle_id[15:18], 16) + (ahead << 12)
        )


def horizon() -> str:
    """What ids of version 7 of the next hundred years are less than.

    Past it, an id comes from no clock; and the ids that DECNET makes, which are random, lie there.
    """
    return f"{(time.time_ns() // 1_000_000 >> 16) + _CENTURY:08x}"


def id_after(lifecycle_id: str) -> str:
    """The id right behind this one, before any id that is made later; a new id if this is no version 7."""
    try:
        before = UUID(lifecycle_id)
    except ValueError:
        return new_id()
    if before.version != 7 or str(before) != lifecycle_id or before.int & _RANDOM_MASK == _RANDOM_MASK:
        return new_id()
    return str(UUID(int=before.int + 1))


def _text(moment: int, random: int) -> str:
    digits = f"{moment >> 12:012x}7{moment & 0xFFF:03x}{0b10 << _RANDOM_BITS | random:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
