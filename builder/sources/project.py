"""`drydock.toml`, which names the sources of a project, and `drydock.lock.toml`, which pins them."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from builder.errors import LockError, ProfileError, SourceError, Where
from builder.names import NAME_PATTERN
from builder.profile.load import Source, validated
from builder.sources.unpack import SUFFIXES

PROJECT_FILE = "drydock.toml"
LOCK_FILE = "drydock.lock.toml"

_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
_URL = re.compile(rf"(https|http|ssh|git)://(?:([A-Za-z0-9._-]+)@)?({_HOST})(?::[0-9]+)?/[!-~]*")
_SCP = re.compile(rf"(?:[A-Za-z0-9._-]+@)?{_HOST}:(?![/:])[!-~]+")
_LONELY = "a user name or password has no place in a shared file; use git's credential helper, or a netrc file"


def is_loopback(url: str) -> bool:
    """Whether a URL is of this very machine: the one place to which a connection need not be encrypted."""
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


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Declared(_Model):
    """A source as drydock.toml names it: exactly one of `git`, `path`, `package`, `archive`; `rev` goes with `git`."""

    git: Annotated[str, AfterValidator(_place)] | None = None
    rev: Annotated[str, AfterValidator(_revision)] | None = None
    path: Annotated[str, AfterValidator(_path)] | None = None
    package: Annotated[str, AfterValidator(_distribution)] | None = None
    archive: Annotated[str, AfterValidator(_archive)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Declared:
        if sum(place is not None for place in (self.git, self.path, self.package, self.archive)) != 1:
            raise ValueError("give exactly one of git, path, package, archive")
        if self.rev is not None and self.git is None:
            raise ValueError("rev goes with git")
        return self

    @property
    def kind(self) -> str:
        """`git`, `path`, `package` or `archive`."""
        return next(kind for kind in ("git", "path", "package", "archive") if getattr(self, kind) is not None)

    def __str__(self) -> str:
        text = f"{self.kind} {getattr(self, self.kind)}"
        return f"{text} {self.rev}" if self.rev else text


class Pin(Declared):
    """What a source was pinned to, beside how it was named then: `sha256` is that of its content."""

    commit: str | None = Field(default=None, pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.+!_-]{1,100}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def declared(self) -> Declared:
        """How the source was named when it was pinned."""
        return Declared.model_validate(self.model_dump(exclude={"commit", "version", "sha256"}))

    @property
    def said(self) -> str:
        """What it is pinned to, in a word."""
        return f"commit {self.commit[:12]}" if self.commit else self.version or f"sha256 {self.sha256[:12]}"


class _ProjectFile(_Model):
    sources: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Declared] = {}


class _LockFile(_Model):
    schema_: Literal[1] = Field(alias="schema")
    sources: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Pin] = {}


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
    file = folder / PROJECT_FILE
    declared = _read(_ProjectFile, content, file).sources
    lock = seen[folder / LOCK_FILE] = _content(folder / LOCK_FILE)
    try:
        pins = _read(_LockFile, lock, folder / LOCK_FILE).sources if lock is not None else {}
    except ProfileError as error:
        raise LockError(error.message, hint="delete it, then: drydock sources lock", where=error.where) from None
    return Project(file, declared, pins)


def written(pins: Mapping[str, Pin]) -> str:
    """The text of drydock.lock.toml; the same pins give the same bytes."""
    rows = {name: pins[name].model_dump(exclude_none=True) for name in sorted(pins)}
    head = "# What the sources of drydock.toml are pinned to. Made by `drydock sources lock`; do not edit.\n\n"
    return head + tomli_w.dumps({"schema": 1, "sources": rows})


_M = TypeVar("_M", bound=BaseModel)


def _read(model: type[_M], content: bytes, file: Path) -> _M:
    where = Where(str(file))
    try:
        text = content.decode("utf-8")
        data: dict[str, Any] = tomllib.loads(text)
    except UnicodeDecodeError:
        raise ProfileError("not UTF-8", hint="save the file as UTF-8", where=where) from None
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"not TOML: {error}", where=where) from None
    return validated(model, data, Source(str(file), text))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=Where(str(path))) from None
