"""A source of profiles as a project names it: a table of drydock.toml, checked by hand, as pydantic takes longer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.embedded.git import is_scp
from builder.names import NAME_PATTERN
from builder.project.document import Document

SUFFIXES = (".tar.gz", ".tgz", ".tar.xz", ".zip")  # of archives

_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
_URL = re.compile(rf"(https|http|ssh|git)://(?:([A-Za-z0-9._-]+)@)?({_HOST})(?::[0-9]+)?/[!-~]*")
_SCP = re.compile(rf"(?:[A-Za-z0-9._-]+@)?{_HOST}:(?![/:])[!-~]+")
_LONELY = "a user name or password has no place in a shared file; use git's credential helper, or a netrc file"


def is_loopback(url: str) -> bool:
    """Whether a URL is of this very machine: the one place to which a connection need not be encrypted."""
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _place(value: str) -> str:
    """A URL, `user@host:path` as ssh has it, or a path to a repository."""
    if value.startswith("-") or not value.isprintable() or not value:
        raise ValueError("not a URL, and not the path of a repository")
    if re.match(r"[A-Za-z0-9+.-]*::", value):
        raise ValueError("git's remote helpers run programs; give an https:// or ssh:// URL, or a path")
    if "://" not in value:
        if is_scp(value) and not _SCP.fullmatch(value):
            raise ValueError("not a URL, and not the path of a repository")
        return value
    if value.startswith("file:///"):
        return value
    found = _URL.fullmatch(value)
    if found is None and "@" in value.partition("://")[2].partition("/")[0]:
        raise ValueError(_LONELY)
    if found is None:
        raise ValueError("must be an https:// or ssh:// URL, or the path of a repository")
    if found[2] and found[1] != "ssh":
        raise ValueError(_LONELY)
    if found[1] in ("http", "git") and not is_loopback(value):
        raise ValueError(f"{found[1]}:// is neither encrypted nor authenticated; take https:// or ssh://")
    return value


def _archive(value: str) -> str:
    found = _URL.fullmatch(value)
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise ValueError(_LONELY)
    if found is None or found[1] not in ("https", "http") or (found[1] == "http" and not is_loopback(value)):
        raise ValueError("must be an https:// URL")
    if "?" in value or "#" in value:
        raise ValueError("a URL with a query may hold a credential; give one without")
    if not value.endswith(SUFFIXES):
        raise ValueError("must end with .tar.gz, .tar.xz or .zip")
    return value


def _revision(value: str) -> str:
    # As git-check-ref-format(1) has it, and plainer.
    if (
        not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*", value)
        or ".." in value
        or value.endswith((".lock", "/", "."))
    ):
        raise ValueError("not a tag, a branch or a commit")
    return value


def _distribution(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value):
        raise ValueError("not the name of a Python package")
    return value


def _path(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("not the path of a folder")
    return value


@dataclass(frozen=True)
class Declared:
    """A source as drydock.toml names it: exactly one of `git`, `path`, `package`, `archive`; `rev` goes with `git`."""

    git: str | None = None
    rev: str | None = None
    path: str | None = None
    package: str | None = None
    archive: str | None = None

    @property
    def kind(self) -> str:
        """`git`, `path`, `package` or `archive`."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def place(self) -> str:
        """The value of that: a URL, a folder, the name of a package."""
        return str(getattr(self, self.kind))

    def __str__(self) -> str:
        return f"{self.kind} {self.place} {self.rev}" if self.rev else f"{self.kind} {self.place}"


_KINDS = {"git": _place, "path": _path, "package": _distribution, "archive": _archive}
_KEYS = {**_KINDS, "rev": _revision}


def names(document: Document, sources: Any) -> list[str]:
    """The names of the sources in the table `sources` of a file. Raises ProfileError for one that is none."""
    for name in document.table(sources, ("sources",), "must be a table for each source: [sources.team]"):
        if not re.fullmatch(NAME_PATTERN.rstrip("$"), name):
            raise document.error(f'"{name}" is no name for a source: a-z, 0-9 and - only', ("sources", name))
    return list(sources)


def declared(
    document: Document, name: str, table: Any, others: Mapping[str, Callable[[str], str]] | None = None
) -> Declared:
    """The source `name`, from its table, which may have `others` beside, each with what checks its value.

    Raises ProfileError.
    """
    key = ("sources", name)
    document.check(table, {**_KEYS, **(others or {})}, key)
    if sum(kind in table for kind in _KINDS) != 1:
        raise document.error(f"give exactly one of {', '.join(_KINDS)}", key)
    if "rev" in table and "git" not in table:
        raise document.error("rev goes with git", (*key, "rev"))
    return Declared(**{one: value for one, value in table.items() if one in _KEYS})


def read(document: Document, sources: Any) -> dict[str, Declared]:
    """All sources of a file, by name. Raises ProfileError."""
    return {name: declared(document, name, sources[name]) for name in names(document, sources)}
