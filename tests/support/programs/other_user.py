"""This Python, with this checkout, as another user."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_CHECKOUT = Path(__file__).parents[3]


def python_as(user: int, place: Path, *, groups: Sequence[int] = (), first: str = "true") -> list[str]:
    """A command that takes Python's arguments; root alone can run it.

    Args:
        user: who it is then, also as a group.
        place: a directory that others may enter. There the user finds what may lie below /root, by mounts.
        groups: the further groups.
        first: a command of the shell that root runs before, among the same mounts.
    """
    python, checkout = place / "python", place / "checkout"
    python.mkdir(exist_ok=True)
    checkout.mkdir(exist_ok=True)
    further = f"--groups {','.join(map(str, groups))}" if groups else "--clear-groups"
    become = f"setpriv --reuid {user} --regid {user} {further}"
    mounts = [
        shlex.join(["mount", "--bind", *pair])
        for pair in ((sys.prefix, str(python)), (str(_CHECKOUT), str(checkout)))
    ]
    start = f'exec env PYTHONPATH={checkout} PYTHONDONTWRITEBYTECODE=1 {become} {python}/bin/python "$@"'
    return ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, first, start]), "sh"]
