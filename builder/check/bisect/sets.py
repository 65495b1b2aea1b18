"""Which mixtures of two locks fit together: of each changed package the old or the new one. Pure.

Both locks fit by themselves. So a mixture that does not has a new package and an old one that contradict each other,
and the only ways out are both new, or both old: "x is new, so y is new". All mixtures that keep to these rules fit,
and the rules are known from what the packages of the two locks say that they require.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.lock.model import Artefact, Change, Lock, changes

TRAINER, TOOLS = "trainer.source", "build.requires"
"""What else may differ between two locks, beside packages: names that no package has."""


@dataclass(frozen=True)
class Mixture:
    """Two locks of one profile, and the names of all that differs between them."""

    old: Lock
    new: Lock
    names: tuple[str, ...]

    def lock(self, chosen: Iterable[str]) -> Lock:
        """The old lock with what is `chosen` from the new one."""
        ours, old, new = frozenset(chosen), _packages(self.old), _packages(self.new)

        def side(name: str) -> Lock:
            return self.new if name in ours else self.old

        found = {name: (new if name in ours else old).get(name) for name in {*old, *new}}
        python = self.old.python or self.new.python
        update: dict[str, Any] = {
            "packages": [one for _, one in sorted(found.items()) if one is not None],
            "patches": [pin for lock in (self.old, self.new) for pin in lock.patches if side(pin.package) is lock],
            "python": side(python.name).python if python else None,
            "trainer": side(TRAINER).trainer,
            "build_requires": side(TOOLS).build_requires,
        }
        return self.new.model_copy(update=update)

    def change(self, name: str) -> Change:
        """How something differs between the two locks."""
        found = {one.name: one for one in changes(self.old, self.new)}
        return found.get(name) or Change(name=name, before="of the old lock", after="of the new lock")


def mixture(old: Lock, new: Lock) -> Mixture:
    """Two locks, with all that differs between them."""
    before, after = _everything(old), _everything(new)
    names = [
        name
        for name in sorted({*before, *after})
        if (one := before.get(name)) is None or (two := after.get(name)) is None or one.sha256 != two.sha256
    ]
    names += [TRAINER] if (old.trainer and old.trainer.commit) != (new.trainer and new.trainer.commit) else []
    names += [TOOLS] if _contents(old.build_requires) != _contents(new.build_requires) else []
    return Mixture(old, new, tuple(names))


def _contents(packages: Iterable[Artefact]) -> set[str]:
    return {package.sha256 for package in packages}


def _packages(lock: Lock) -> dict[str, Artefact]:
    return {package.name: package for package in lock.packages}


def _everything(lock: Lock) -> dict[str, Artefact]:
    return {**_packages(lock), **({lock.python.name: lock.python} if lock.python else {})}


Requirements = Mapping[str, Sequence[Requirement]]
"""What each package of a lock requires, whatever the markers."""


def needs(
    found: Mixture,
    old: Requirements,
    new: Requirements,
    asked: Sequence[Requirement],
    environment: Mapping[str, Any],
) -> dict[str, frozenset[str]]:
    """Of each name that differs, which others have to be new where it is; always itself.

    `asked` is what the profile requires: it decides, with the packages, which extras count. `environment` has the
    values of the markers.
    """
    extras = _extras([*asked, *(one for side in (old, new) for some in side.values() for one in some)])
    versions = found.old.versions(), found.new.versions()
    changed = frozenset(found.names)
    rules: dict[str, set[str]] = {name: {name} for name in found.names}
    for own, side in enumerate((old, new)):
        for requirer, required in _applying(side, extras, environment):
            name = str(canonicalize_name(required.name))
            if requirer not in changed or name not in changed:
                continue  # each fits both locks
            other = 1 - own
            if _fits(required, versions[own].get(name)) and not _fits(required, versions[other].get(name)):
                if own:
                    rules[requirer].add(name)
                else:
                    rules[name].add(requirer)
    return {name: _reached(rules, name) for name in found.names}


def _extras(requirements: Iterable[Requirement]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in requirements:
        found.setdefault(str(canonicalize_name(one.name)), {""}).update(one.extras)
    return found


def _applying(
    side: Requirements, extras: Mapping[str, set[str]], environment: Mapping[str, Any]
) -> Iterator[tuple[str, Requirement]]:
    for package, requirements in side.items():
        for one in requirements:
            wanted = extras.get(package, {""})
            if one.marker is None or any(one.marker.evaluate({**environment, "extra": extra}) for extra in wanted):
                yield package, one


def _fits(required: Requirement, version: str | None) -> bool:
    return version is not None and required.specifier.contains(version, prereleases=True)


def _reached(rules: Mapping[str, set[str]], start: str) -> frozenset[str]:
    found, left = {start}, [start]
    while left:
        more = rules[left.pop()] - found
        found |= more
        left += more
    return frozenset(found)
