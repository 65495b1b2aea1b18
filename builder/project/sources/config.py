"""`drydock.toml`, which names the sources of a project, and `drydock.lock.toml`, which pins them."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import LockError, ProfileError, SourceError, Where
from builder.names import NAME_PATTERN

SUFFIXES = (".tar.gz", ".tgz", ".tar.xz", ".zip")  # of archives
VERSION = r"[A-Za-z0-9.+!_-]{1,100}"
PROJECT_FILE = "drydock.toml"
LOCK_FILE = "drydock.lock.toml"

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


def is_scp(place: str) -> bool:
    """Whether git reads a place as `user@host:path`, and not as a path (git-fetch(1), GIT URLS)."""
    return "://" not in place and ":" in place.partition("/")[0]


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


@dataclass(frozen=True)
class Pin:
    """What a source was pinned to, and how it was named then: `sha256` is that of its content."""

    declared: Declared
    sha256: str
    commit: str | None = None
    version: str | None = None

    @property
    def said(self) -> str:
        """What it is pinned to, in a word."""
        return f"commit {self.commit[:12]}" if self.commit else self.version or f"sha256 {self.sha256[:12]}"


@dataclass(frozen=True)
class Project:
    """The sources of a project, by name, and what they are pinned to; `file` is drydock.toml, None where none is."""

    file: Path | None
    declared: Mapping[str, Declared] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)

    @property
    def lock_file(self) -> Path:
        """Where the pins are, or would be. Raises ProfileError where there is no project."""
        if self.file is None:
            raise ProfileError(
                f"there is no {PROJECT_FILE} here, and none above", hint="[sources.team] in it names one"
            )
        return self.file.with_name(LOCK_FILE)

    def source(self, name: str) -> Declared:
        """The source `name` as it is declared. Raises ProfileError with the nearest name."""
        if name in self.declared:
            return self.declared[name]
        near = difflib.get_close_matches(name, self.declared, 1)
        known = f"known sources: {', '.join(self.declared)}" if self.declared else f"name it in {PROJECT_FILE}"
        raise ProfileError(f'no source "{name}"', hint=f'did you mean "{near[0]}"?' if near else known)

    def path(self, name: str) -> Path:
        """The folder of a source that is a path. Raises SourceError where it is not there."""
        declared = self.source(name)
        folder = (self.lock_file.parent / str(declared.path)).absolute()
        if not folder.is_dir():
            raise SourceError(f'"{name}": {folder} is not a folder', where=self.where(name))
        return folder

    def pin(self, name: str) -> Pin:
        """What a source is pinned to. Raises ProfileError for one that is not there, LockError where it has no pin."""
        declared = self.source(name)
        pin = self.pins.get(name)
        if pin is None or pin.declared != declared:
            what = "is not pinned yet" if pin is None else f"is pinned as {pin.declared}, and named as {declared}"
            raise LockError(f'the source "{name}" {what}', hint="drydock sources lock", where=self.where(name))
        return pin

    def where(self, name: str) -> Where:
        """Where a source is named."""
        return Where(str(self.file), key=f"sources.{name}")


def find(seen: dict[Path, bytes | None]) -> Project:
    """The project that this folder is in: the first drydock.toml, upwards. `seen` gets the files that were looked at.

    Raises ProfileError and LockError.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        content = seen[folder / PROJECT_FILE] = _content(folder / PROJECT_FILE)
        if content is not None:
            break
    else:
        return Project(None)
    tables = _Tables(folder / PROJECT_FILE, content)
    declared = {name: _declared(tables, name, {}) for name in tables.sources({"sources"})}
    lock = seen[folder / LOCK_FILE] = _content(folder / LOCK_FILE)
    pins = {}
    try:
        if lock is not None:
            tables = _Tables(folder / LOCK_FILE, lock)
            pins = {name: _pin(tables, name) for name in tables.sources({"schema", "sources"})}
    except ProfileError as error:
        raise LockError(error.message, hint="delete it, then: drydock sources lock", where=error.where) from None
    return Project(folder / PROJECT_FILE, declared, pins)


def written(pins: Mapping[str, Pin]) -> str:
    """The text of drydock.lock.toml; the same pins give the same bytes."""
    import tomli_w

    rows = {}
    for name in sorted(pins):
        pin = pins[name]
        row = {**vars(pin.declared), "commit": pin.commit, "version": pin.version, "sha256": pin.sha256}
        rows[name] = {key: value for key, value in row.items() if value is not None}
    head = "# What the sources of drydock.toml are pinned to. Made by `drydock sources lock`; do not edit.\n\n"
    return head + tomli_w.dumps({"schema": 1, "sources": rows})


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"not {what}")
        return value

    return check


_KINDS = {"git": _place, "path": _path, "package": _distribution, "archive": _archive}
_DECLARED = {**_KINDS, "rev": _revision}
_PINNED = {
    "commit": _matching(r"[0-9a-f]{40}|[0-9a-f]{64}", "a commit"),
    "version": _matching(VERSION, "a version"),
    "sha256": _matching(r"[0-9a-f]{64}", "a sha256"),
}


class _Tables:
    """The tables `sources.NAME` of a file; every error says where. By hand: pydantic takes longer than all the rest."""

    def __init__(self, file: Path, content: bytes) -> None:
        self._file = file
        try:
            self._text = content.decode("utf-8")
            self._data = tomllib.loads(self._text)
        except UnicodeDecodeError:
            raise ProfileError("not UTF-8", hint="save the file as UTF-8", where=Where(str(file))) from None
        except tomllib.TOMLDecodeError as error:
            raise ProfileError(f"not TOML: {error}", where=Where(str(file))) from None

    def sources(self, known: set[str]) -> list[str]:
        """The names of the sources. Raises ProfileError for a key that is not `known`, and a name that is none."""
        for key in self._data:
            if key not in known:
                raise self.error(f'unknown key "{key}"', (key,), hint=f"known here: {', '.join(sorted(known))}")
        if self._data.get("schema", 1) != 1:
            raise self.error("a newer Drydock has written this", ("schema",))
        sources = self._data.get("sources", {})
        if not isinstance(sources, dict):
            raise self.error("must be a table for each source: [sources.team]", ("sources",))
        for name in sources:
            if not re.fullmatch(NAME_PATTERN.rstrip("$"), name):
                raise self.error(f'"{name}" is no name for a source: a-z, 0-9 and - only', ("sources", name))
        return list(sources)

    def source(self, name: str, known: Mapping[str, Callable[[str], str]]) -> dict[str, str]:
        """The table of a source, each of its values checked. Raises ProfileError."""
        table = self._data["sources"][name]
        if not isinstance(table, dict):
            raise self.error("must be a table", ("sources", name))
        for key, value in table.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
                raise self.error(f'unknown key "{key}"', ("sources", name, key), hint=hint)
            try:
                known[key](value if isinstance(value, str) else "")
            except ValueError as error:
                raise self.error(str(error), ("sources", name, key)) from None
        return table

    def error(self, message: str, key: tuple[str, ...], hint: str | None = None) -> ProfileError:
        """An error with the line that it is about."""
        from builder.profile.toml_lines import line_of  # imports all of a profile's model

        return ProfileError(message, hint=hint, where=Where(str(self._file), line_of(self._text, key), ".".join(key)))


def _declared(tables: _Tables, name: str, beside: Mapping[str, Callable[[str], str]]) -> Declared:
    table = tables.source(name, {**_DECLARED, **beside})
    if sum(kind in table for kind in _KINDS) != 1:
        raise tables.error(f"give exactly one of {', '.join(_KINDS)}", ("sources", name))
    if "rev" in table and "git" not in table:
        raise tables.error("rev goes with git", ("sources", name, "rev"))
    return Declared(**{key: value for key, value in table.items() if key in _DECLARED})


def _pin(tables: _Tables, name: str) -> Pin:
    declared = _declared(tables, name, _PINNED)
    table = tables.source(name, {**_DECLARED, **_PINNED})
    if "sha256" not in table or ("commit" in table) != (declared.git is not None) or declared.path is not None:
        raise tables.error("this is not a pin as Drydock writes it", ("sources", name))
    return Pin(declared, table["sha256"], table.get("commit"), table.get("version"))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=Where(str(path))) from None
