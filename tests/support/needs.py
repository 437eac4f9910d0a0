"""What a test needs of the machine: without it, it is skipped, or fails where DECNET_REQUIRE_E2E is 1."""

import os
import shutil
from collections.abc import Iterable
from typing import NoReturn

import pytest

_LACKS = "this machine lacks "


def need(*programs: str) -> None:
    """Skip the test where one of these programs is not on PATH."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        lacking(*missing)


def lacking(*things: str) -> NoReturn:
    """Skip the test, since the machine lacks these."""
    reason = _LACKS + ", ".join(things)
    (pytest.fail if os.environ.get("DECNET_REQUIRE_E2E") == "1" else pytest.skip)(reason)


def summary(reasons: Iterable[str]) -> str:
    """One line about all tests that were skipped: why, and how to have them run. Empty if none was."""
    whys = [reason.removeprefix("Skipped: ") for reason in reasons]
    if not whys:
        return ""
    things = {thing for why in whys if why.startswith(_LACKS) for thing in why[len(_LACKS) :].split(", ")}
    others = sorted({why for why in whys if not why.startswith(_LACKS)})
    why = "; ".join([*([_LACKS + ", ".join(sorted(things))] if things else []), *others])
    return f"{len(whys)} tests were skipped: {why}. Type: sudo .ci/run, which installs that and runs them"
