"""A static web server on loopback, which can be made to fail in the ways that servers fail."""

from __future__ import annotations

import base64
import threading
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from tests.support.loopback import Loopback
from tests.support.waiting import LONG


class Web(Loopback):
    """Serves `folder`. `requests` has the paths asked for.

    `fault` is what happens to files below files/: "" (nothing), "wrong", "cut", "stall", "endless", "500", "redirect".
    `password` is what it asks for as user "me".
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.fault = ""
        self.password = ""
        self.over = threading.Event()
        super().__init__(self._handler())

    @property
    def url(self) -> str:
        user = f"me:{self.password}@" if self.password else ""
        return f"http://{user}127.0.0.1:{self.port}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        super().__exit__(kind, value, trace)

    def _handler(self) -> type[SimpleHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"web": self})


class _Handler(SimpleHTTPRequestHandler):
    web: Web

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=str(self.web.folder))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.web.requests.append(self.path)
        if self.web.password and self.headers.get("Authorization") != _basic(self.web.password):
            self._say(401, "WWW-Authenticate", 'Basic realm="mirror"')
        elif not self.web.fault or not self.path.startswith("/files/") or self.path.endswith(".metadata"):
            super().do_GET()
        elif self.web.fault == "500":
            self._say(500, "Retry-After", "0")
        elif self.web.fault == "redirect":
            self._say(302, "Location", f"file://{self.web.folder}{self.path}")
        else:
            self._send_badly()

    def _say(self, code: int, name: str, value: str) -> None:
        self.send_response(code)
        self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_badly(self) -> None:
        content = (self.web.folder / unquote(self.path.lstrip("/"))).read_bytes()
        self.send_response(200)
        if self.web.fault != "endless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.web.fault in ("wrong", "endless"):
            self.wfile.write(content[:-100] + bytes(100))
            while self.web.fault == "endless" and not self.web.over.is_set():
                self.wfile.write(bytes(1 << 16))
            return
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if self.web.fault == "stall":
            self.web.over.wait(LONG)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()
