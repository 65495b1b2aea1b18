"""A hub on loopback that speaks the protocol of the Hugging Face hub, as far as a download needs it.

As huggingface_hub's client asks for it (file_download.py, hf_api.py): a repository's revision with its files, and each
file by revision; large ones, which git LFS has, by a redirection to another host with an address of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.loopback import Loopback
from tests.support.waiting import LONG

LARGE = 2000
"""Bytes from which on a file is one of git LFS."""


class Repo:
    """A repository: commits, oldest first, each with its files, and what its branches and tags are."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.token = ""  # without it, nobody reads it
        self.commit(files)

    def commit(self, files: Mapping[str, bytes], *refs: str) -> str:
        """A new commit, which is that of `main` and of `refs`."""
        content = repr((sorted(self.commits), sorted(files.items())))
        name = hashlib.sha1(content.encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs.update(dict.fromkeys(("main", *refs), name))
        return name

    @property
    def head(self) -> str:
        return self.refs["main"]


class Hub(Loopback):
    """Serves `repos`, by "models/org/name" or "datasets/org/name". `requests` has the paths asked for, with the header
    Authorization of each; those of another host, where large files are, begin with "/cdn/".

    `fault` is what happens to large files: "" (nothing), "wrong", "cut", "stall", "endless", "500", "no-range".
    `lies` replaces what is said of a revision.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.fault = ""
        self.lies: dict[str, Any] = {}
        self.slow = 0.0
        self.over = threading.Event()
        super().__init__(type("Handler", (_Handler,), {"hub": self}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self.port}/cdn"

    def __exit__(self, *error: object) -> None:
        self.over.set()
        super().__exit__(None, None, None)

    def fetched(self) -> list[str]:
        """The paths of the contents that were asked for."""
        return [path for path, _ in self.requests if "/resolve/" in path or path.startswith("/cdn/")]


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, secret = urlsplit(self.path).path, self.headers.get("Authorization", "")
        self.hub.requests.append((path, secret))
        if path.startswith("/cdn/"):
            self._send_large(path.removeprefix("/cdn/"))
        elif api := re.fullmatch(r"/api/(models|datasets)/(.+?)/revision/(.+)", path):
            self._revision(f"{api[1]}/{api[2]}", unquote(api[3]), secret)
        elif file := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
            self._file(f"{file[1] or 'models/'}{file[2]}", unquote(file[3]), unquote(file[4]), secret)
        else:
            self._say(404, {"X-Error-Code": "RepoNotFound"})

    def _found(self, name: str, revision: str, secret: str) -> tuple[str, dict[str, bytes]] | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            code, why = 401, "RepoNotFound"
        elif repo.token and secret != f"Bearer {repo.token}":
            code, why = 403 if secret else 401, "GatedRepo"
        else:
            commit = repo.refs.get(revision, revision)
            if commit in repo.commits:
                return commit, repo.commits[commit]
            code, why = 404, "RevisionNotFound"
        self._say(code, {"X-Error-Code": why})
        return None

    def _revision(self, name: str, revision: str, secret: str) -> None:
        found = self._found(name, revision, secret)
        if found is None:
            return
        commit, files = found
        blobs = parse_qs(urlsplit(self.path).query).get("blobs") == ["true"]
        siblings = [{"rfilename": path, **(_blob(content) if blobs else {})} for path, content in files.items()]
        said = {"_id": "0", "id": name.partition("/")[2], "sha": commit, "private": False, "siblings": siblings}
        self._send(json.dumps({**said, **self.hub.lies}).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, path: str, secret: str) -> None:
        found = self._found(name, revision, secret)
        if found is None:
            return
        commit, files = found
        if path not in files:
            self._say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = files[path]
        head = {"X-Repo-Commit": commit}
        if len(content) < LARGE:
            self._send(content, {**head, "ETag": f'"{git_name(content)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        self._say(302, {**head, **linked, "Location": f"{self.hub.cdn}/{name}/{commit}/{path}"})

    def _send_large(self, path: str) -> None:
        kind, org, name, commit, file = unquote(path).split("/", 4)
        content = self.hub.repos[f"{kind}/{org}/{name}"].commits[commit][file]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.hub.fault != "no-range" else 0
        self.hub.ranges.append(self.headers.get("Range", ""))
        if self.hub.fault == "500":
            self._say(500, {})
            return
        if self.hub.fault == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.hub.fault == "endless":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if self.hub.fault in ("cut", "stall") and len(rest) > 150_000:
            rest = rest[: len(rest) // 2]
            self.close_connection = True
        for at in range(0, len(rest), 1 << 16):
            self.wfile.write(rest[at : at + (1 << 16)])
            if self.hub.slow:
                self.hub.over.wait(self.hub.slow)
        while self.hub.fault == "endless" and not self.hub.over.is_set():
            self.wfile.write(bytes(1 << 16))
        self.wfile.flush()
        if self.hub.fault == "stall":
            self.hub.over.wait(LONG)

    def _send(self, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _say(self, code: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _blob(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"size": len(content), "blobId": git_name(content)}
    if len(content) >= LARGE:
        digest = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return found
