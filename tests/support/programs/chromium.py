"""A real headless Chromium: what a page becomes in it, and how it looks."""

import shutil
import subprocess
from pathlib import Path

from tests.support.fleet import HANG_GUARD_S
from tests.support.needs import lacking

_NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1"),
)


def find_chromium() -> str:
    """The binary; skips the test where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None) or lacking("chromium")


class Chromium:
    """Opens pages, each time with a profile that is new.

    Args:
        directory: for profiles and pictures.
    """

    def __init__(self, directory: Path) -> None:
        self._binary = find_chromium()
        self._directory = directory
        self._opened = 0

    def dom(self, url: str) -> str:
        """The page's document as HTML, after it was loaded."""
        return self._run("--dump-dom", url)

    def picture(self, url: str, width: int, height: int) -> Path:
        """A PNG of what a window of this size shows."""
        file = self._directory / "page.png"
        self._run(f"--screenshot={file}", f"--window-size={width},{height}", url)
        return file

    def _run(self, *arguments: str) -> str:
        self._opened += 1
        profile = self._directory / f"profile-{self._opened}"
        command = [self._binary, *FLAGS, f"--user-data-dir={profile}", *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=HANG_GUARD_S, check=False)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout
