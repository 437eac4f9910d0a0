"""A wall clock that a test sets, for the processes that are started with its environment."""

from pathlib import Path


def find_libfaketime() -> str | None:
    """The library that fakes a process's wall clock (Debian: libfaketime); None where there is none."""
    return next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


class WallClock:
    """The wall clock of the processes that are started with its environment.

    Args:
        control: the file that says what time it is.
        library: of `find_libfaketime`.

    Attributes:
        environment: of those processes.
    """

    def __init__(self, control: Path, library: str) -> None:
        self._control = control
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(control),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """Set it: `+1d`, `-20m`, `+0`."""
        new = self._control.with_name("new")
        new.write_text(f"{offset}\n")
        new.rename(self._control)
