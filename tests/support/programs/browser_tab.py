"""A tab of a real headless Chromium that stays open, driven over its debugging pipe: type, click, look.

The Chrome DevTools Protocol, JSON ended by a zero byte, on the descriptors 3 and 4 (--remote-debugging-pipe):
no port, and no library.
"""

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.fleet import HANG_GUARD_S
from tests.support.programs.chromium import FLAGS, find_chromium


class Tab:
    """One page. Calls block, so that a test runs them in a thread.

    Args:
        send, receive: descriptors of the debugging pipe.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._rest = b""
        self._calls = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def tell(self, method: str, **parameters: Any) -> None:
        """A call of the protocol, whose result is not waited for."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._send, left) :]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A call of the protocol; its result."""
        self.tell(method, **parameters)
        answer = self._answer()
        assert "error" not in answer, f"{method}: {answer}"
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], HANG_GUARD_S)
            assert ready, "Chromium says nothing any more"
            data = os.read(self._receive, 1 << 16)
            assert data, "Chromium is gone"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        """What an expression of JavaScript comes to; a promise is waited for."""
        answer = self._js(expression)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _js(self, expression: str) -> dict[str, Any]:
        self.tell("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        answer = self._answer()
        # A page that is left answers with an error: it is the next one that is asked.
        result: dict[str, Any] = answer.get("result", {})
        return result

    def _answer(self) -> dict[str, Any]:
        while (answer := self._read()).get("id") != self._calls:
            pass
        return answer

    def until(self, expression: str) -> None:
        """Wait until an expression is true, also over a change of pages."""
        code = f"(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()"
        turn = f"new Promise(go => {{ const f = n => {code} ? go(true) : n ? setTimeout(f, 20, n - 1) : go(false); f(50) }})"
        give_up = time.monotonic() + HANG_GUARD_S
        while not self._js(turn).get("result", {}).get("value"):
            assert time.monotonic() < give_up, f"never came true: {expression}"

    def window(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window, and which colours its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path) -> Path:
        """A PNG of what the window shows."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return file


@contextmanager
def open_tab(directory: Path) -> Iterator[Tab]:
    """A tab of a Chromium of its own.

    Args:
        directory: for its profile.
    """
    binary = find_chromium()
    (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
    profile = f"--user-data-dir={directory / 'profile'}"
    process = subprocess.Popen(
        # A shell, since the descriptors must be these two.
        [
            *("bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "chromium"),
            *(binary, *FLAGS, "--remote-debugging-pipe", profile),
        ],
        pass_fds=[theirs_in, theirs_out],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    tab = Tab(ours_out, ours_in)
    try:
        yield tab
    finally:
        with contextlib.suppress(OSError):
            tab.tell("Browser.close")
        process.wait(HANG_GUARD_S)
        os.close(ours_out)
        os.close(ours_in)
