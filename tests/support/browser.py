"""A Chromium that is asked over two pipes, by its DevTools protocol: one process for many pages, and no port.

https://chromedevtools.github.io/devtools-protocol/ names the methods; each message is JSON that ends with a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(os.environ.get("DRYDOCK_TESTS_AXE", "nowhere"))
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
NO_AXE = "no axe: npm pack axe-core, and DRYDOCK_TESTS_AXE names its axe.min.js"
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason=NO_AXE)


def of_a_browser() -> dict[str, str]:
    """The environment of a browser, which asks this machine only."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


class Browser:
    """One page of a browser without a window. `requests` has the addresses that it asked for, `said` what its console
    says, and errors of scripts.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.said: list[str] = []
        self._number = 0
        self._events: list[str] = []

    def __enter__(self) -> Self:
        assert CHROMIUM is not None
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        asked, self._to = os.pipe()
        self._from, answered = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={self._home.name}"]
        options += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        # The protocol's pipes are 3 and 4 in the browser, which a shell may wrap.
        redirected = f'exec "$@" 3<&{asked} 4>&{answered}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "browser", CHROMIUM, *options],
            pass_fds=(asked, answered),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=of_a_browser(),
            start_new_session=True,
        )
        os.close(asked)
        os.close(answered)
        self._answers = os.fdopen(self._from, "rb")
        self._rest = b""
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        self._answers.close()
        self._home.cleanup()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a method of the protocol; ValueError where it fails, as while the page is left for another."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._heard(answer)
        if "error" in answer:
            raise ValueError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            content = os.read(self._from, 1 << 16)
            assert content, "the browser has ended"
            self._rest += content
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _heard(self, event: dict[str, Any]) -> None:
        method, of = event["method"], event["params"]
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(of["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(f"{of['type']}: {[each.get('value') for each in of['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.said.append(f"exception: {of['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.said.append(f"{of['entry']['level']}: {of['entry']['text']} {of['entry'].get('url', '')}")

    def go(self, address: str) -> None:
        """Load a page, with all that it brings."""
        self._events.clear()
        self.ask("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._heard(self._next())

    def look(self, width: int, scheme: str, height: int = 900) -> None:
        """Be so wide, and of a reader who likes pages "light" or "dark"; at most 600 pixels is a phone."""
        is_phone = width <= 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone)
        self.ask("Emulation.setTouchEmulationEnabled", enabled=is_phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        features += [{"name": "prefers-reduced-motion", "value": "reduce"}]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def value(self, expression: str) -> Any:
        """What JavaScript says in the page; of a promise what it comes to."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, *, whole: bool = True) -> bytes:
        """The page as PNG; `whole` is to its end, and not only what is seen at first."""
        clip = {}
        if whole:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}}
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        return base64.b64decode(shot["data"])
