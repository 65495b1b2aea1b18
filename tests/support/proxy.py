"""A proxy on loopback, the only way to hosts that have no address: companies' networks have such."""

from __future__ import annotations

import base64
import select
import socket
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.support.loopback import Loopback


class Proxy(Loopback):
    """Leads from each host and port of `ways` to a port of loopback, who says `user` and `password`.

    `requests` has the hosts that were asked for, `refused` counts those who said neither.
    """

    def __init__(self, ways: dict[str, int], user: str = "me", password: str = "s3cret") -> None:
        self.ways = ways
        self.user, self.password = user, password
        self.requests: list[str] = []
        self.refused = 0
        super().__init__(type("Handler", (_Handler,), {"proxy": self}))

    @property
    def url(self) -> str:
        return f"http://{self.user}:{self.password}@127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy

    def _port(self, host: str) -> int | None:
        pair = base64.b64encode(f"{self.proxy.user}:{self.proxy.password}".encode()).decode()
        if self.headers.get("Proxy-Authorization") != f"Basic {pair}":
            self.proxy.refused += 1
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.proxy.requests.append(host)
        if host not in self.proxy.ways:
            self.send_error(502)
            return None
        return self.proxy.ways[host]

    def do_CONNECT(self) -> None:
        port = self._port(self.path)
        if port is None:
            return
        with socket.create_connection(("127.0.0.1", port)) as other:
            self.send_response_only(200)
            self.end_headers()
            pairs = {self.connection: other, other: self.connection}
            while True:
                for one in select.select(list(pairs), [], [])[0]:
                    piece = one.recv(65536)
                    if not piece:
                        self.close_connection = True
                        return
                    pairs[one].sendall(piece)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        port = self._port(parts.netloc)
        if port is None:
            return
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        connection = HTTPConnection("127.0.0.1", port)
        connection.request(self.command, parts.path, headers=headers)
        reply = connection.getresponse()
        body = reply.read()
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 # so http.server wants it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
