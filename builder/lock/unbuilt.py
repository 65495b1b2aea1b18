"""Packages without a wheel that were not allowed to be built: all of them at once, and what was passed over for one.

The question is asked again with their sources allowed. What these require is read from them as data (sdist.py), so
that nothing of theirs is run before somebody has allowed that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from builder import uv
from builder.errors import LockError, ToolError
from builder.lock.sdist import DEFAULT, Sdist
from builder.lock.why import ancestors, paths

_ROUNDS = 16
YEAR = timedelta(days=365)


class Ask(Protocol):
    """Resolves once more, with some packages taken as what is said of their sources."""

    def __call__(self, said: uv.Said, unusable: Callable[[str], None]) -> list[uv.Pin]:
        """The pins. Raises ToolError."""


class Files(Protocol):
    """Where files of packages are looked for."""

    def sdists(self, pins: Sequence[uv.Pin]) -> dict[str, Sdist]:
        """The source distributions of pinned packages, by name. Raises ToolError, LockError."""

    def newest_sources(self, requirements: Sequence[str]) -> dict[str, str]:
        """The newest version of packages of which there is a source distribution; of those without one, none."""

    def has_wheel(self, pin: uv.Pin) -> bool:
        """Whether there is a wheel for the target."""

    def newer_systems(self, pins: Sequence[uv.Pin]) -> dict[str, str]:
        """The line of [target] with which a package has a wheel, by name."""

    def uploaded(self, pins: Sequence[uv.Pin], *, sources: bool) -> dict[str, datetime | None]:
        """When the files of pinned packages came, by name, as far as their indexes say it. Raises ToolError."""


@dataclass(frozen=True)
class Unbuilt:
    """A package that has no wheel: its source, and the packages on the way to it from the profile.

    `system` is the line of [target] with which it has one: a newer glibc or macOS.
    """

    name: str
    version: str
    sdist: Sdist
    way: tuple[str, ...]
    system: str | None = None

    @property
    def requires(self) -> list[str]:
        """What is to stand in [packages.build]."""
        return [*(self.sdist.build_requires or DEFAULT), *self.sdist.undeclared]

    @property
    def line(self) -> str:
        """The line for [packages.build]."""
        wanted = ", ".join(f"'{text}'" if '"' in text else f'"{text}"' for text in self.requires)
        return f"{self.name} = [{wanted}]"

    def __str__(self) -> str:
        by = f" (for {' > '.join(self.way)})" if self.way else ""
        needs = f"  # it needs {', '.join(self.sdist.needs)}" if self.sdist.needs else ""
        newer = f"; or its wheel for a newer system: {self.system}" if self.system else ""
        return f"{self.name} {self.version}{by}: {self.line}{needs}{newer}"


@dataclass(frozen=True)
class PassedOver:
    """A newer version that was not taken, as it, or what it requires, has no wheel."""

    name: str
    locked: str
    newer: str
    sources: tuple[Unbuilt, ...]
    far: str | None = None
    """In words how far the step back is, where it is large."""

    def __str__(self) -> str:
        named = [one for one in self.sources if one.name != self.name]
        why = f"requires {', '.join(f'{one.name} {one.version}' for one in named)}, which has" if named else "has"
        far = f" ({self.far})" if self.far else ""
        return f"{self.name} {self.locked}{far} instead of {self.newer}, which {why} no wheel"


class UnbuiltError(LockError):
    """Some `sources` would have to be built, and the profile does not allow it."""

    def __init__(self, message: str, sources: Sequence[Unbuilt], *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.sources = sources


@dataclass
class Search:
    """What would be locked if every package could be built."""

    ask: Ask
    files: Files
    allowed: frozenset[str]
    _read: dict[tuple[str, str], Sdist] = field(default_factory=dict)

    def missing(self, unusable: Sequence[str]) -> list[Unbuilt]:
        """The sources that have to be built, where without a build nothing fits; none where that would not help."""
        pins, wanted = self._resolved(unusable, {})
        if not pins and self._read:  # an older version may not require what has no wheel for the target
            pins, wanted = self._resolved(unusable, {}, guesses=False)
        return self._unbuilt(pins, wanted) if pins else []

    def passed_over(self, unusable: Sequence[str], chosen: Sequence[uv.Pin]) -> list[PassedOver]:
        """What is newer than the `chosen` packages, if sources could be built."""
        before = {pin.name: pin.version for pin in chosen}
        pins, wanted = self._resolved(unusable, before)
        sources = self._unbuilt(pins, wanted)
        parents = {pin.name: pin.required_by for pin in pins}
        above = {one.name: ancestors(one.name, parents) for one in sources}
        found = []
        for pin in pins if sources else ():
            old = before.get(pin.name)
            below = tuple(one for one in sources if pin.name == one.name or pin.name in above[one.name])
            if old is not None and below and Version(pin.version) > Version(old):
                found.append(PassedOver(pin.name, old, pin.version, below))
        return self._measured(found) if found else []

    def _resolved(
        self, unusable: Sequence[str], before: Mapping[str, str], *, guesses: bool = True
    ) -> tuple[list[uv.Pin], set[str]]:
        """The pins with sources, and the packages that are sources among them; nothing where none fit.

        With `guesses` other versions of a package require what the one does that was read; else each is read.
        """
        settled = set(self.allowed)
        said: dict[str, dict[str, Sequence[str]]] = {}
        new = _by_name(unusable)
        for _ in range(_ROUNDS):
            added = {name: text for name, text in new.items() if name not in said and name not in settled}
            settled |= added.keys()
            for name, newest in self.files.newest_sources(list(added.values())).items():
                # Where the newest has a wheel, or is for another Python, no source would bring another one.
                if name not in before or Version(newest) != Version(before[name]):
                    said[name] = {"": ()}
            if before and not said:
                return [], set()
            heard: list[str] = []
            try:
                pins = self.ask(said, heard.append)
            except ToolError:
                new = _by_name(heard)
                if not new.keys() - settled:
                    return [], set()
                continue
            mine = [pin for pin in pins if pin.name in said]
            wheels = [pin.name for pin in mine if self._has_wheel(pin, before)]
            for name in wheels:
                del said[name]
            unread = [pin for pin in mine if pin.name in said and pin.version not in said[pin.name]]
            for name, sdist in self.files.sdists(unread).items() if unread else ():
                version = next(pin.version for pin in unread if pin.name == name)
                self._read[name, version] = sdist
                said[name][version] = sdist.requires
                said[name][""] = sdist.requires if guesses else ()
            new = {name: text for name, text in _by_name(heard).items() if name not in settled}
            if not (wheels or unread or new):
                return pins, {pin.name for pin in mine}
        return [], set()

    def _has_wheel(self, pin: uv.Pin, before: Mapping[str, str]) -> bool:
        if pin.name in before:
            return before[pin.name] == pin.version
        return (pin.name, pin.version) not in self._read and self.files.has_wheel(pin)

    def _unbuilt(self, pins: Sequence[uv.Pin], wanted: set[str]) -> list[Unbuilt]:
        parents = {pin.name: pin.required_by for pin in pins}
        sources = [pin for pin in pins if pin.name in wanted]
        newer = self.files.newer_systems(sources) if sources else {}
        return [
            Unbuilt(
                pin.name, pin.version, self._read[pin.name, pin.version], _way(pin.name, parents), newer.get(pin.name)
            )
            for pin in sources
        ]

    def _measured(self, found: Sequence[PassedOver]) -> list[PassedOver]:
        """The same, with how far each step back is."""
        olds = [uv.Pin(one.name, one.locked, ()) for one in found]
        direct = {one.name for one in found if any(source.name == one.name for source in one.sources)}
        news = [uv.Pin(one.name, one.newer, ()) for one in found]
        before = self.files.uploaded(olds, sources=False)
        after = self.files.uploaded([pin for pin in news if pin.name in direct], sources=True)
        after |= self.files.uploaded([pin for pin in news if pin.name not in direct], sources=False)
        return [
            PassedOver(one.name, one.locked, one.newer, one.sources, _far(one, before[one.name], after[one.name]))
            for one in found
        ]


def _by_name(requirements: Sequence[str]) -> dict[str, str]:
    """The first requirement of each package."""
    found: dict[str, str] = {}
    for text in requirements:
        found.setdefault(canonicalize_name(Requirement(text).name), text)
    return found


def _way(name: str, parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The shortest way from the profile down to a package, without these two."""
    return next(paths(parents, name), (name,))[:-1]


def _far(one: PassedOver, before: datetime | None, after: datetime | None) -> str | None:
    old, new = Version(one.locked), Version(one.newer)
    if (old.epoch, old.release[0]) != (new.epoch, new.release[0]):
        return "another major version"
    if before is not None and after is not None and after - before > YEAR:
        return f"{(after - before).days} days older"
    return None
