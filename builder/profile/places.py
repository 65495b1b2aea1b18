"""Requirements that name a place: `name @ git+https://host/repository@v1`, `name @ https://host/x.whl`, `./dist/x.whl`.

Pure: what is at the place is found by builder/project/direct.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

_REV = r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*"
_SUBFOLDER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*"
_ENDS = (".whl", ".tar.gz", ".zip")
_LONELY = "a user name or password has no place in a shared file; use git's credential helper, or a netrc file"


@dataclass(frozen=True)
class Place:
    """Where a package is: a `git` repository, with the `rev` and the `subfolder` that are wanted; a file at a `url`, of
    which `sha256` may be said; or a `path`, absolute or relative to the project, of a file or a folder.
    """

    git: str | None = None
    rev: str | None = None
    subfolder: str | None = None
    url: str | None = None
    sha256: str | None = None
    path: str | None = None

    @property
    def file(self) -> str:
        """The name of the file, where it is one."""
        return unquote(urlsplit(self.url or "").path).rsplit("/", 1)[-1] if self.url else (self.path or "")

    def __str__(self) -> str:
        return str(self.git or self.url or self.path) + (f"@{self.rev}" if self.rev else "")


def named(text: str) -> str:
    """A requirement as PEP 508 writes it: a path of a file has the name of its package in it.

    >>> named("./dist/six-1.17.0-py2.py3-none-any.whl")
    'six @ ./dist/six-1.17.0-py2.py3-none-any.whl'
    """
    if not text.startswith(("./", "../")) or " @ " in text:
        return text
    path, _, marker = text.partition(";")
    try:
        file = path.strip().rsplit("/", 1)[-1]
        name = parse_wheel_filename(file)[0] if file.endswith(".whl") else parse_sdist_filename(file)[0]
    except (InvalidWheelFilename, InvalidSdistFilename):
        raise ValueError(f"what is the package called? Write: NAME @ {text}") from None
    return f"{name} @ {path.strip()}" + (f" ; {marker.strip()}" if marker else "")


def place_of(requirement: Requirement) -> Place | None:
    """The place that a requirement names; None where that is an index. Raises ValueError where it cannot be one."""
    url = requirement.url
    if url is None:
        return None
    if not url.isprintable() or " " in url or "?" in url or "::" in url:
        raise ValueError("not a place: a URL without a query, git+URL@REVISION, or a path")
    place, _, fragment = url.partition("#")
    said = _fragment(fragment)
    subfolder = said.get("subdirectory")
    if place.startswith("git+"):
        return _git(place.removeprefix("git+"), subfolder)
    if place.startswith("file:"):
        if not re.match("file:///[^/]", place):
            raise ValueError("a file:// URL has an absolute path: file:///srv/x.whl")
        return Place(path=unquote(place.removeprefix("file://")), subfolder=subfolder, sha256=said.get("sha256"))
    if "://" not in place:
        return Place(path=place, subfolder=subfolder, sha256=said.get("sha256"))
    _check_host(place, ("https", "http"))
    found = Place(url=place, subfolder=subfolder, sha256=said.get("sha256"))
    if not found.file.endswith(_ENDS):
        raise ValueError("must end with .whl, .tar.gz or .zip; a repository is git+https://…")
    return found


def _fragment(text: str) -> dict[str, str]:
    said = dict(part.partition("=")[::2] for part in text.split("&") if part)
    if unknown := sorted(said.keys() - {"subdirectory", "egg", "sha256"}):
        raise ValueError(f"#{unknown[0]} is not known; known are subdirectory and sha256")
    if "subdirectory" in said and not re.fullmatch(_SUBFOLDER, said["subdirectory"]):
        raise ValueError("subdirectory must be a plain path inside the repository")
    if "sha256" in said and not re.fullmatch("[0-9a-f]{64}", said["sha256"]):
        raise ValueError("sha256 must have 64 characters, 0-9 and a-f")
    return said


def _git(place: str, subfolder: str | None) -> Place:
    start = place.find("/", place.find("://") + 3)
    head, path = place[:start], place[start:]
    path, at, rev = path.partition("@")
    if at and (not re.fullmatch(_REV, rev) or ".." in rev or rev.endswith((".lock", "/", "."))):
        raise ValueError("what follows @ is not a tag, a branch or a commit")
    if start < 0 or "://" not in place or (not head.startswith("file://") and len(path) < 2):
        raise ValueError("must be git+https://…, git+ssh://… or git+file:///…, with @REVISION")
    _check_host(place, ("https", "ssh", "file", "http"))
    return Place(git=head + path, rev=rev or None, subfolder=subfolder)


def _check_host(place: str, schemes: Sequence[str]) -> None:
    parts = urlsplit(place)
    if parts.scheme not in schemes:
        raise ValueError(f"{parts.scheme}:// is not a place that can be locked")
    if parts.password or (parts.username and parts.scheme != "ssh"):
        raise ValueError(_LONELY)
    if (parts.hostname or "").startswith("-"):
        raise ValueError("not the name of a host")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise ValueError("http:// is neither encrypted nor authenticated; take https:// or ssh://")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
