"""The page on this machine alone: on loopback, for who has the token in its address, and read only."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOST = "127.0.0.1"
EVERY = 2.0
"""Seconds after which the page asks for itself again."""


def server(port: int, page: Callable[[str], str]) -> tuple[ThreadingHTTPServer, str]:
    """A server that answers with what `page` returns for a nonce, and its address. Raises OSError for a port in use."""
    token = secrets.token_urlsafe(24)

    class Handler(BaseHTTPRequestHandler):
        """Answers GET of the one address, from a browser that was given it; everything else is refused."""

        server_version, sys_version = "drydock", ""
        timeout = 30

        def do_GET(self) -> None:
            allowed = {f"{_HOST}:{found.server_port}", f"localhost:{found.server_port}"}
            # A name that somebody else's DNS turned into 127.0.0.1 is not ours.
            if self.headers.get("Host") not in allowed:
                self._answer(421, "this is not the host that was asked for", "")
            elif not hmac.compare_digest(self.path.encode(), f"/{token}/".encode()):
                self._answer(404, "the address has a token, which is another one", "")
            else:
                nonce = secrets.token_urlsafe(16)
                self._answer(200, page(nonce), nonce, "text/html; charset=utf-8")

        def _answer(self, status: int, text: str, nonce: str, kind: str = "text/plain; charset=utf-8") -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("X-Frame-Options", "DENY")
            own = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'" if nonce else ""
            self.send_header(
                "Content-Security-Policy", f"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; {own}"
            )
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: the address has the token in it."""

    found = ThreadingHTTPServer((_HOST, port), Handler)
    found.daemon_threads = True
    return found, f"http://{_HOST}:{found.server_port}/{token}/"
