"""A package index on loopback: PEP 503, 658 and 691 over a folder of wheels."""

from __future__ import annotations

import hashlib
import html
import json
import re
import ssl
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

from builder.embedded.credentials import basic
from tests.support.loopback import Loopback


class Index(Loopback):
    """Serves `folder`; `requests` has the paths asked for, and `tamper` may change the bytes of a file on the way.

    With `has_metadata`, the METADATA of a wheel is a file of its own too. `ranges` has the parts of files asked for.
    What indexes leave out: `algorithm` is the hash that it says, "" for none; `sizes` and `days` of files. `password`
    is what it asks for as user "me". `context` is for TLS.
    """

    def __init__(self, folder: Path, context: ssl.SSLContext | None = None) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.tamper: Callable[[str, bytes], bytes] = lambda _name, content: content
        self.uploaded: dict[str, str] = {}
        self.has_metadata = True
        self.ranges: list[tuple[int, int]] = []
        self.algorithm = "sha256"
        self.sizes = self.days = True
        self.password = ""
        self._scheme = "http" if context is None else "https"
        super().__init__(self._handler(), context)

    @property
    def url(self) -> str:
        """The value for UV_DEFAULT_INDEX."""
        return f"{self._scheme}://127.0.0.1:{self.port}/simple"

    def page(self, project: str) -> bytes | None:
        """The PEP 691 page of a project; None where there is no file of it."""
        files = [path for path in sorted(self.folder.iterdir()) if _project(path.name) == project]
        rows = [
            {
                "filename": path.name,
                "url": f"../../files/{path.name}",
                "hashes": self._hashes(path.read_bytes()),
                **({"size": path.stat().st_size} if self.sizes else {}),
                **({"upload-time": self.uploaded.get(path.name, "2020-01-01T00:00:00Z")} if self.days else {}),
            }
            for path in files
        ]
        page = {"meta": {"api-version": "1.1"}, "name": project, "files": rows}
        return json.dumps(page).encode() if rows else None

    def _hashes(self, content: bytes) -> dict[str, str]:
        return {self.algorithm: hashlib.new(self.algorithm, content).hexdigest()} if self.algorithm else {}

    def answer(self, path: str, accept: str = "*/*") -> tuple[bytes | None, str]:
        """The body and content type for a request."""
        if found := re.fullmatch(r"/simple/([^/]+)/?", path):
            page = self.page(found[1])
            if page is not None and accept == "text/html":
                return _as_html(page), "text/html"
            return page, "application/vnd.pypi.simple.v1+json"
        if self.has_metadata and path.startswith("/files/") and path.endswith(".whl.metadata"):
            metadata = _metadata(self.folder / Path(unquote(path)).stem)
            return metadata and self.tamper(Path(unquote(path)).name, metadata), "text/plain"
        file = self.folder / Path(unquote(path)).name
        if path.startswith("/files/") and file.is_file():
            return self.tamper(file.name, file.read_bytes()), "application/octet-stream"
        return None, ""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                index.requests.append(self.path)
                if index.password and self.headers.get("Authorization") != basic("me", index.password):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="index"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body, kind = index.answer(self.path, self.headers.get("Accept", "*/*"))
                wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if wanted and body is not None:
                    index.ranges.append((int(wanted[1]), int(wanted[2])))
                    whole, body = len(body), body[int(wanted[1]) : int(wanted[2]) + 1]
                self.send_response(404 if body is None else 206 if wanted else 200)
                if wanted and body is not None:
                    self.send_header("Content-Range", f"bytes {wanted[1]}-{wanted[2]}/{whole}")
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler


def _as_html(page: bytes) -> bytes:
    """PEP 503, for who asks for nothing else (uv, of a place for links)."""
    links = (
        f'<a href="{html.escape(row["url"])}{_fragment(row["hashes"])}">{html.escape(row["filename"])}</a>'
        for row in json.loads(page)["files"]
    )
    return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()


def _fragment(hashes: dict[str, str]) -> str:
    return "".join(f"#{name}={value}" for name, value in hashes.items())


def _metadata(wheel: Path) -> bytes | None:
    if not wheel.is_file():
        return None
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))


def _project(file: str) -> str:
    stem = file.removesuffix(".tar.gz")
    name = stem.rsplit("-", 1)[0] if stem != file else file.split("-", 1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
