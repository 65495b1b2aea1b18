"""The one reader of `drydock.toml`, which has what is said of a project and of no single profile.

    required-version = ">=0.2"                  # of Drydock, for everybody who works on the project

    [sources.team]                              where profiles of others come from (builder/project/sources)
    git = "https://forge.example/team/profiles"

    [caches]                                    where locked files are looked for before an index is asked
    places = ["https://wheels.example/drydock", "/srv/drydock", "s3://bucket/drydock"]

    [fleets.lab]                                hosts that profiles are deployed to (builder/project/fleets.py)
    hosts = ["mac[01-10]", "gpu-a"]

It is looked for in the working directory, then upwards. A new table gets its reader in _TABLES, and a field in Config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from builder.errors import ProfileError, UsageError, Where
from builder.project import fleets
from builder.project.document import Document, content
from builder.project.fleets import Fleet
from builder.project.sources import declared
from builder.project.sources.declared import Declared
from builder.resources import DISTRIBUTION, version

FILE = "drydock.toml"


@dataclass(frozen=True)
class Config:
    """What drydock.toml says; `file` is None where there is none in the working directory, nor above."""

    file: Path | None = None
    sources: Mapping[str, Declared] = field(default_factory=dict)
    caches: tuple[str, ...] = ()
    fleets: Mapping[str, Fleet] = field(default_factory=dict)
    required_version: str | None = None

    def fleet(self, name: str) -> Fleet:
        """The fleet `name`. Raises UsageError with the nearest name."""
        if name in self.fleets:
            return self.fleets[name]
        from difflib import get_close_matches

        near = get_close_matches(name, self.fleets, 1)
        known = f"known fleets: {', '.join(self.fleets)}" if self.fleets else ""
        hint = (
            f'did you mean "{near[0]}"?'
            if near
            else known or f'name its hosts in {FILE}: [fleets.lab] hosts = ["h[1-3]"]'
        )
        raise UsageError(f'no fleet "{name}"', hint=hint)

    def check_version(self) -> None:
        """Raise ProfileError where the project is for another Drydock than this one."""
        if (wanted := self.required_version) is None:
            return
        from packaging.specifiers import SpecifierSet

        here = version()
        if SpecifierSet(wanted).contains(here, prereleases=True):
            return
        raise ProfileError(
            f"this project is for Drydock {wanted}, and this is {here}",
            hint=f"install another, for instance: uv tool install '{DISTRIBUTION}{wanted}'",
            where=Where(str(self.file), key="required-version"),
        )


def find(seen: dict[Path, bytes | None] | None = None) -> Config:
    """The first drydock.toml, upwards from the working directory. `seen` gets the files that were looked at.

    Raises ProfileError.
    """
    here = Path.cwd()
    looked = seen if seen is not None else {}
    for folder in (here, *here.parents):
        found = looked[folder / FILE] = content(folder / FILE)
        if found is not None:
            return _read(Document(folder / FILE, found))
    return Config()


def _read(document: Document) -> Config:
    document.known(_TABLES)
    values = {name.replace("-", "_"): _TABLES[name](document, value) for name, value in document.data.items()}
    return Config(document.file, **values)


def read_caches(document: Document, value: Any) -> tuple[str, ...]:
    """The folders and URLs in the table `caches`. Raises ProfileError."""
    table = document.table(value, ("caches",), 'has one key: [caches] places = ["/srv/drydock"]')
    document.keys(table, ("places",), ("caches",))
    places, key = table.get("places", []), ("caches", "places")
    if not isinstance(places, list) or not all(isinstance(word, str) and word for word in places):
        raise document.error("must be a list of folders and URLs", key)
    for word in places:
        if any(char.isspace() or char == "," for char in word):
            raise document.error(f'"{word}" has white space or a comma in it', key, hint="write %20")
        try:
            parts = urlsplit(word if "://" in word else "")
        except ValueError as error:
            raise document.error(f'"{word}" is not a URL: {error}', key) from None
        if parts.password is not None:
            hint = "keep it out of files: DRYDOCK_CACHE"
            raise document.error("a password is in the URL of a cache", key, hint=hint)
    return tuple(places)


def _required_version(document: Document, value: Any) -> str:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return str(SpecifierSet(value if isinstance(value, str) else "?"))
    except InvalidSpecifier:
        raise document.error('not a range of versions; write for instance ">=0.2"', ("required-version",)) from None


_TABLES: Mapping[str, Callable[[Document, Any], Any]] = {
    "sources": declared.read,
    "caches": read_caches,
    "fleets": fleets.read,
    "required-version": _required_version,
}
