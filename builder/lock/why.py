"""Why a package is in an environment: `drydock why`. Pure, from the required-by of a lock.

`--json` prints one object; its keys stay as they are:

    name, package, version    the profile, and the package as it is locked
    role                      "run": it is in the environment; "build": it only builds source distributions
    required-by               the packages that require it directly, sorted; "profile" is the profile itself
    override                  {"requirement", "reason"} where the profile overrides it, else null
    paths                     from a requirement of the profile down to the package, as lists of names, shortest first
    count                     how many paths there are in all; null where there are more, and a circle among the
                              packages makes them too many to count
"""

from __future__ import annotations

import difflib
import heapq
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

from packaging.utils import canonicalize_name

from builder.embedded.words import plural
from builder.errors import UsageError
from builder.lock.model import Lock, LockedOverride
from builder.lock.tree import Branch

LIMIT = 20
"""How many paths are returned."""

_PROFILE = "profile"
Parents = Mapping[str, Collection[str]]
"""Package to those that require it; `profile` is the profile itself."""


@dataclass(frozen=True)
class Why:
    """The answer: all that leads to `package` of `versions`, which are the lock's."""

    name: str
    package: str
    role: str
    versions: Mapping[str, str]
    required_by: list[str]
    override: LockedOverride | None
    paths: list[tuple[str, ...]]
    count: int | None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "name": self.name,
            "package": self.package,
            "version": self.versions[self.package],
            "role": self.role,
            "required-by": self.required_by,
            "override": self.override and self.override.model_dump(),
            "paths": [list(path) for path in self.paths],
            "count": self.count,
        }

    def lines(self) -> Iterator[str]:
        """The answer as text: a head, a line for each path, and the number of paths left out."""
        yield from self.head()
        for path in self.paths:
            yield "  " + " -> ".join([self.name, *(f"{one} {self.versions[one]}" for one in path)])
        yield from (f"  {text}" for text in self.rest())

    def head(self) -> Iterator[str]:
        """The package, how many paths lead to it, and what overrides it."""
        version = self.versions[self.package]
        role = " (only to build source distributions)" if self.role == "build" else ""
        number = plural(len(self.paths) if self.count is None else self.count, "path")
        many = number if self.count is not None else f"more than {number}"
        yield f"{self.package} {version}{role}: {many} from {self.name}"
        if self.override is not None:
            yield f"  overridden: {self.override}"

    def rest(self) -> Iterator[str]:
        """The number of paths that are left out."""
        if self.count is None:
            yield "and more"
        elif self.count > len(self.paths):
            yield f"and {self.count - len(self.paths)} more"

    def tree(self) -> Branch:
        """The same paths as a tree: what several have in common stands once."""
        return Branch(self.name, self._below(()), "head")

    def _below(self, above: tuple[str, ...]) -> list[Branch]:
        depth = len(above)
        names = dict.fromkeys(path[depth] for path in self.paths if len(path) > depth and path[:depth] == above)
        return [
            Branch(f"{one} {self.versions[one]}", self._below((*above, one)), "found" if one == self.package else "")
            for one in names
        ]


def why(name: str, lock: Lock, package: str, *, limit: int = LIMIT) -> Why:
    """Why `package` is in `lock`, which the user called `name`; `limit` is the number of paths to return.

    Any spelling of the package's name will do. Raises UsageError with the nearest name where the lock does not have it.
    """
    wanted = str(canonicalize_name(package))
    for role, artefacts in (("run", lock.packages), ("build", lock.build_requires)):
        versions = {one.name: one.version for one in artefacts}
        if wanted not in versions:
            continue
        parents = {one.name: one.required_by for one in artefacts}
        found = list(islice(paths(parents, wanted), limit + 1))
        count = len(found) if len(found) <= limit else _count(parents, wanted)
        override = next((one for one in lock.overrides if one.package == wanted), None)
        return Why(name, wanted, role, versions, sorted(parents[wanted]), override, found[:limit], count)
    known = [*lock.versions(), *(one.name for one in lock.build_requires)]
    near = difflib.get_close_matches(wanted, known, 1)
    hint = f'did you mean "{near[0]}"?' if near else "no package of its lock has a similar name"
    raise UsageError(f'{name} has no package "{package}"', hint=hint)


def ancestors(package: str, parents: Parents) -> set[str]:
    """All that requires a package, and what requires that, the profile too."""
    found: set[str] = set()
    waiting = [package]
    while waiting:
        more = set(parents.get(waiting.pop(), ())) - found
        found |= more
        waiting += more
    return found


def paths(parents: Parents, package: str) -> Iterator[tuple[str, ...]]:
    """All paths without a circle from the profile's requirements to `package`: shortest first, then by name.

    Best first, with the exact distance that is left once the path itself is out of the way: every step is one towards
    an answer, so that circles cost no more than the search for that distance.

    >>> parents = {"a": ["profile"], "b": ["a", "c"], "c": ["b", "profile"]}
    >>> list(paths(parents, "b"))
    [('a', 'b'), ('c', 'b')]
    """
    children: dict[str, list[str]] = {}
    for child, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(child)
    left = _distances(parents, package, ())
    waiting: list[tuple[int, tuple[str, ...]]] = [
        (left[one], (one,)) for one in children.get(_PROFILE, ()) if one in left
    ]
    heapq.heapify(waiting)
    while waiting:
        _, path = heapq.heappop(waiting)
        if path[-1] == package:
            yield path
            continue
        left = _distances(parents, package, path)
        for child in children.get(path[-1], ()):
            if child in left:
                heapq.heappush(waiting, (len(path) + left[child], (*path, child)))


def _distances(parents: Parents, package: str, without: Collection[str]) -> dict[str, int]:
    """The number of steps from each package down to `package`, on ways around `without`."""
    distances = {package: 0}
    queue = deque([package])
    while queue:
        here = queue.popleft()
        for parent in parents[here]:
            if parent in parents and parent not in distances and parent not in without:
                distances[parent] = distances[here] + 1
                queue.append(parent)
    return distances


def _count(parents: Parents, package: str) -> int | None:
    """How many paths lead to `package`; None where packages on the way require each other in a circle."""
    above = {one: [parent for parent in parents[one] if parent in parents] for one in _distances(parents, package, ())}
    counts: dict[str, int] = {}
    try:
        for one in TopologicalSorter(above).static_order():
            counts[one] = (_PROFILE in parents[one]) + sum(counts[parent] for parent in above[one])
    except CycleError:
        return None
    return counts[package]
