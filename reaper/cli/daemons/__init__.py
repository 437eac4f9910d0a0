"""Commands that run until they are stopped."""

import sys

# structlog.dev imports rich where it is there, for tracebacks that our log doesn't have: a seventh of a
# daemon's start (60 of 440 ms). It is hidden while structlog is imported, before any module that logs.
_hidden = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
import structlog  # noqa: E402, F401

if _hidden:
    del sys.modules["rich"]
