"""A tab of a real headless Chromium that stays open: look, type, press keys.

The Chrome DevTools Protocol, JSON ended by a zero byte, on the descriptors 3 and 4 (--remote-debugging-pipe):
no port, and no library.
"""

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.fleet import HANG_GUARD_S
from tests.support.programs.chromium import FLAGS, find_chromium

_AS_IF_IN_FRONT: Final = (
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-features=BackForwardCache",  # a page that is left is gone, and so is what waits in it
)
_LONGEST_MESSAGE: Final = 1 << 26
_WHEN: Final = """new Promise(met => {
    const is_so = () => { try { return !!(%s) } catch { return false } };
    const look = () => { if (is_so()) { watch.disconnect(); met(true) } };
    const watch = new MutationObserver(look);
    watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    addEventListener("focusin", look);
    look();
})"""
_KEYS: Final = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, "")}

JSON = dict[str, Any]


class Tab:
    """One page.

    Args:
        reader, writer: the debugging pipe.

    Attributes:
        complaints: errors of scripts and of the Content-Security-Policy, and whatever else is in the console.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.complaints: list[str] = []
        self._reader, self._writer = reader, writer
        self._session: str | None = None
        self._calls: dict[int, asyncio.Future[JSON]] = {}
        self._listening = asyncio.create_task(self._listen())

    async def attach(self) -> None:
        """Take hold of the page that the browser opens with."""
        await self.call("Target.setDiscoverTargets", discover=True)
        targets: list[JSON] = (await self.call("Target.getTargets"))["targetInfos"]
        page = next((each["targetId"] for each in targets if each["type"] == "page"), None)
        page = page or (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    async def close(self) -> None:
        """End the browser."""
        self._session = None
        with contextlib.suppress(OSError, ConnectionError):
            await self.call("Browser.close")
        self._writer.close()
        await self._listening

    async def call(self, method: str, **parameters: Any) -> JSON:
        """A call of the protocol; its result."""
        answer = await self._ask(method, **parameters)
        assert "error" not in answer, f"{method}: {answer}"
        result: JSON = answer["result"]
        return result

    async def _ask(self, method: str, **parameters: Any) -> JSON:
        number = len(self._calls)
        answer: asyncio.Future[JSON] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        message = {"id": number, "method": method, "params": parameters}
        self._writer.write(json.dumps(message | self._in_session()).encode() + b"\0")
        async with asyncio.timeout(HANG_GUARD_S):
            return await answer

    def _in_session(self) -> JSON:
        return {"sessionId": self._session} if self._session else {}

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if "id" in message:
                    self._calls[message["id"]].set_result(message)
                else:
                    self._hear(message["method"], message["params"])
        for call in self._calls.values():
            if not call.done():
                call.set_exception(ConnectionError("Chromium is gone"))

    def _hear(self, method: str, told: JSON) -> None:
        if method == "Log.entryAdded":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(told["args"]))

    async def open(self, url: str) -> None:
        """Go to a page."""
        failed = (await self.call("Page.navigate", url=url)).get("errorText")
        assert failed is None, failed

    async def js(self, expression: str) -> Any:
        """What an expression of JavaScript comes to; a promise is waited for."""
        told = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true: looks at each change of the page, and at the next page."""
        wait = {"expression": _WHEN % expression, "awaitPromise": True, "returnByValue": True}
        try:
            async with asyncio.timeout(HANG_GUARD_S):
                # A page that is left answers with an error: it is the next one that is asked.
                while "error" in (answer := await self._ask("Runtime.evaluate", **wait)):
                    pass
        except TimeoutError:
            shown = await self.js("document.body.innerText")
            raise AssertionError(f"never came true: {expression}; {self.complaints}\n{shown}") from None
        assert "exceptionDetails" not in answer["result"], answer

    async def press(self, key: str) -> None:
        """A key, as if a person had pressed it."""
        code, text = _KEYS[key]
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text
            )

    async def type(self, text: str) -> None:
        """A text, as if a person had typed it."""
        await self.call("Input.insertText", text=text)

    async def window(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window, and which colours its user prefers."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, file: Path) -> Path:
        """A PNG of what the window shows."""
        file.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot"))["data"]))
        return file


@asynccontextmanager
async def open_tab(directory: Path, options: Sequence[str] = ()) -> AsyncIterator[Tab]:
    """A tab of a Chromium of its own, which is gone afterwards.

    Args:
        directory: for its profile.
        options: more of its options.
    """
    binary = find_chromium()
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            # A shell, since the descriptors must be these two.
            *("bash", "-c", f'exec "$@" 3<&{theirs.fileno()} 4>&{theirs.fileno()}', "chromium"),
            *(binary, *FLAGS, *_AS_IF_IN_FRONT, *options, "--remote-debugging-pipe"),
            f"--user-data-dir={directory / 'profile'}",
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    tab = Tab(*await asyncio.open_connection(sock=ours, limit=_LONGEST_MESSAGE))
    try:
        await tab.attach()
        yield tab
    finally:
        await tab.close()
        async with asyncio.timeout(HANG_GUARD_S):
            await process.wait()
