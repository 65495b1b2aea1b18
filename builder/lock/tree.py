"""What requires what in a lock, as a tree: `drydock tree`. Pure, from the required-by of the lock."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from builder.errors import UsageError
from builder.lock.model import Lock

_PROFILE = "profile"


@dataclass(frozen=True)
class Marks:
    """What the lines of a tree are drawn with."""

    branch: str
    last: str
    along: str


UNICODE = Marks("├── ", "└── ", "│   ")
ASCII = Marks("|-- ", "`-- ", "|   ")


@dataclass(frozen=True)
class Branch:
    """A line of a tree, and what stands below it.

    `kind` decides its colour: head, found, quiet, added, removed, changed.
    """

    text: str
    below: Sequence[Branch] = ()
    kind: str = ""

    def drawn(self, marks: Marks, lead: str = "", under: str = "") -> Iterator[tuple[str, Branch]]:
        """Each line from here on: what leads to it, and what stands there."""
        yield lead, self
        for number, one in enumerate(self.below):
            is_last = number == len(self.below) - 1
            yield from one.drawn(
                marks, under + (marks.last if is_last else marks.branch), under + ("    " if is_last else marks.along)
            )


@dataclass(frozen=True)
class Tree:
    """The packages of a lock: `versions` by name, and for each the packages that it `requires`, both sorted.

    `roots` are what the profile itself requires.
    """

    name: str
    versions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]]
    roots: Sequence[str]

    def branch(self, *, below: str | None = None, depth: int | None = None) -> Branch:
        """The tree of the profile, or of the package `below` alone, `depth` packages deep.

        What stands there a second time has a (*), and nothing under it. Raises UsageError for a package that is not in
        the lock.
        """
        seen: set[str] = set()
        if below is not None:
            return self._branch(self._locked_name(below), seen, depth)
        return Branch(self.name, [self._branch(package, seen, depth) for package in self.roots], "head")

    def _branch(self, package: str, seen: set[str], depth: int | None) -> Branch:
        requires = self.requires[package] if depth != 1 else ()
        text = f"{package} {self.versions[package]}"
        if package in seen and requires:
            return Branch(f"{text} (*)", kind="quiet")
        seen.add(package)
        return Branch(text, [self._branch(one, seen, None if depth is None else depth - 1) for one in requires])

    def _locked_name(self, package: str) -> str:
        name = canonicalize_name(package)
        if name not in self.versions:
            near = difflib.get_close_matches(name, self.versions, 1)
            hint = f"did you mean {near[0]}?" if near else f"all that it has: drydock tree {self.name}"
            raise UsageError(f"{package} is not in the lock of {self.name}", hint=hint)
        return name

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints: the profile's own requirements, and each package with its version and what it needs."""
        packages = [
            {"name": name, "version": version, "requires": list(self.requires[name])}
            for name, version in self.versions.items()
        ]
        return {"name": self.name, "requires": list(self.roots), "packages": packages}


def tree(name: str, lock: Lock) -> Tree:
    """The tree of a lock, which is that of the profile `name`."""
    requires: dict[str, list[str]] = {package.name: [] for package in lock.packages}
    roots = []
    for package in sorted(lock.packages, key=lambda one: one.name):
        for one in package.required_by:
            if one in requires:
                requires[one].append(package.name)
            elif one == _PROFILE:
                roots.append(package.name)
    return Tree(name, dict(sorted(lock.versions().items())), requires, roots)
