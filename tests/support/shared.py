"""What profiles are shared through: git repositories, and a web server on loopback."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.remote import free_port, wait_for
from tests.support.sandbox import Sandbox


class Repository:
    """A git repository of somebody else's, in the folder `path`."""

    def __init__(self, desk: Sandbox, path: Path) -> None:
        self.path = path
        self._desk = desk
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        """Run `git ARGUMENTS` in it; gives what it prints."""
        who = ["-c", "user.name=Team", "-c", "user.email=team@example.org"]
        return self._desk.run(["git", *who, *arguments], cwd=self.path).succeeded().stdout.strip()

    def commit(self, files: Mapping[str, str] | None = None) -> str:
        """Commit `files`, paths to texts, and all that has changed; gives the commit."""
        for name, text in (files or {}).items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=more")
        return self.git("rev-parse", "HEAD")


Answer = tuple[int, Mapping[str, str], bytes]


@contextmanager
def web(answer: Callable[[str, Mapping[str, str]], Answer]) -> Iterator[str]:
    """A web server; `answer` has path and headers of a request to status, headers and body. Gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path, dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def daemon(command: Callable[[int], Sequence[str]]) -> Iterator[int]:
    """A program that listens on a free port of loopback, which `command` is given. Gives the port."""
    port = free_port()
    process = subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.communicate()
