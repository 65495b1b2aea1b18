"""What the sources of a project are pinned to: `drydock.lock.toml`, beside drydock.toml."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import LockError, ProfileError, SourceError, Where
from builder.project import config
from builder.project.document import Document, content
from builder.project.sources import declared
from builder.project.sources.declared import Declared

VERSION = r"[A-Za-z0-9.+!_-]{1,100}"
LOCK_FILE = "drydock.lock.toml"


@dataclass(frozen=True)
class Pin:
    """What a source was pinned to, and how it was named then: `sha256` is that of its content."""

    declared: Declared
    sha256: str
    commit: str | None = None
    version: str | None = None

    @property
    def revision(self) -> str:
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
            raise ProfileError(f"there is no {config.FILE} here, and none above", hint="[sources.team] in it names one")
        return self.file.with_name(LOCK_FILE)

    def source(self, name: str) -> Declared:
        """The source `name` as it is declared. Raises ProfileError with the nearest name."""
        if name in self.declared:
            return self.declared[name]
        near = difflib.get_close_matches(name, self.declared, 1)
        known = f"known sources: {', '.join(self.declared)}" if self.declared else f"name it in {config.FILE}"
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


def read(said: config.Config, seen: dict[Path, bytes | None]) -> Project:
    """The sources of a project with their pins. `seen` gets the file that was looked at.

    Raises LockError.
    """
    if said.file is None:
        return Project(None)
    file = said.file.with_name(LOCK_FILE)
    found = seen[file] = content(file)
    pins = {}
    try:
        if found is not None:
            document = Document(file, found)
            document.known(("schema", "sources"))
            if document.data.get("schema", 1) != 1:
                raise document.error("a newer Drydock has written this", ("schema",))
            rows = document.data.get("sources", {})
            pins = {name: _pin(document, name, rows[name]) for name in declared.names(document, rows)}
    except ProfileError as error:
        raise LockError(error.message, hint="delete it, then: drydock sources lock", where=error.where) from None
    return Project(said.file, said.sources, pins)


def find() -> Project:
    """The sources of the project that the working directory is in. Raises ProfileError and LockError."""
    return read(config.find(), {})


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


_PINNED = {
    "commit": _matching(r"[0-9a-f]{40}|[0-9a-f]{64}", "a commit"),
    "version": _matching(VERSION, "a version"),
    "sha256": _matching(r"[0-9a-f]{64}", "a sha256"),
}


def _pin(document: Document, name: str, table: Any) -> Pin:
    named = declared.declared(document, name, table, _PINNED)
    if "sha256" not in table or ("commit" in table) != (named.git is not None) or named.path is not None:
        raise document.error("this is not a pin as Drydock writes it", ("sources", name))
    return Pin(named, table["sha256"], table.get("commit"), table.get("version"))
