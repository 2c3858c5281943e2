"""Chromium, driven over its DevTools protocol through a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LIMIT_S = 60
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, "ArrowDown": 40}


class Browser:
    """A browser process."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        read_end, self._write = os.pipe()
        self._read, write_end = os.pipe()
        shell = f'exec "$0" "$@" 3<&{read_end} 4>&{write_end}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, CHROMIUM, *_FLAGS, f"--user-data-dir={folder}"], pass_fds=(read_end, write_end),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(read_end)
        os.close(write_end)
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method, and return its result."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != number:
            self.events.append(found)
        assert "error" not in found, found
        return dict(found["result"])

    def wait(self, method: str, session: str) -> None:
        """Wait for an event of a session."""
        while not any(one.get("method") == method and one.get("sessionId") == session for one in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            found = os.read(self._read, 1 << 20)
            assert found, "the browser has ended"
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def open(self, file: Path, *, width: int = 1400, dark: bool = False) -> Page:
        """Open a file, and return once it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        started = time.monotonic()
        page.call("Page.navigate", url=file.as_uri())
        self.wait("Page.loadEventFired", session)
        page.call("Runtime.evaluate", expression="document.body.offsetHeight")  # the layout is done
        page.opened_in_s = time.monotonic() - started
        return page

    def close(self) -> None:
        """End the browser and its children."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._read)
        os.close(self._write)


class Page:
    """An open page. It is closed at the end of a ``with`` block."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.opened_in_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method for this page."""
        return self._browser.call(method, self._session, **parameters)

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, or type a character."""
        code = KEYS.get(key, 0)
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def requests(self) -> list[str]:
        """The addresses that the page has requested, but for its own."""
        found = [one["params"] for one in self._events("Network.requestWillBeSent")]
        return [one["request"]["url"] for one in found if one["type"] != "Document" or "initiator" not in one
                or one["initiator"]["type"] != "other"]  # fmt: skip

    def errors(self) -> list[str]:
        """Errors in the console: exceptions, violations of the content policy, failed requests."""
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(one["params"]) for name in names for one in self._events(name)]

    def _events(self, name: str) -> list[dict[str, Any]]:
        self.run("new Promise(done => setTimeout(done, 20))")  # what has been started is reported
        return [one for one in self._browser.events
                if one.get("method") == name and one.get("sessionId") == self._session]  # fmt: skip

    def screenshot(self, file: Path, *, height: int | None = None) -> None:
        """Write a picture of the page from its top, by default of all of it."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", format=file.suffix[1:], clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])
