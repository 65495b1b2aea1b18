"""Which packages of a lock have newer versions: `drydock outdated`. Nothing is changed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from builder.consent import Builds
from builder.errors import LockError, ToolError
from builder.lock.finder import Artefacts
from builder.lock.model import Lock
from builder.lock.placed import by_version
from builder.lock.resolution import Resolution
from builder.profile import pytorch
from builder.profile.model import Profile


@dataclass(frozen=True)
class Outdated:
    """A package with a newer version: the `locked` one, what an `update` would lock, and the `latest` that there is for
    the target, whatever the profile says of versions and days.
    """

    name: str
    locked: str
    update: str
    latest: str

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def outdated(
    profile: Profile, lock: Lock, builds: Builds, *, caches: Iterable[str] = (), step: Callable[[str], None]
) -> list[Outdated]:
    """The packages of `lock` that are not the newest, by name; PyTorch's as for a lock, which `caches` are for.

    Raises LockError.
    """
    places = list(caches)
    loose = profile.packages.model_copy(
        update={
            "requires": [_loose(text) for text in profile.packages.requires],
            "overrides": [],
            "exclude_newer": None,
            "exclude_newer_package": {},
            "exclude_newer_index": {},
        }
    )
    with tempfile.TemporaryDirectory(prefix="drydock-lock-") as work:
        question = _Question(lock, Path(work), builds, places, step)
        try:
            update = question.versions(profile)
            latest = question.versions(profile.model_copy(update={"packages": loose}))
        except ToolError as error:
            raise LockError(f'"{profile.name}" cannot be resolved. {error.message}', hint=error.hint) from None
    found = [
        Outdated(name, version, update.get(name, version), latest.get(name, version))
        for name, version in sorted(lock.versions().items())
    ]
    return [one for one in found if one.update != one.locked or one.latest != one.locked]


def _loose(requirement: str) -> str:
    parsed = Requirement(requirement)
    parsed.specifier = SpecifierSet()
    return str(parsed)


@dataclass(frozen=True)
class _Question:
    """What is newest, asked in a folder for `work`."""

    lock: Lock
    work: Path
    builds: Builds
    caches: Sequence[str]
    step: Callable[[str], None]

    def versions(self, profile: Profile) -> dict[str, str]:
        """The newest of every package that a profile allows.

        Where no index at hand has a newer PyTorch for the target, its packages are taken as they are locked.
        """
        try:
            return self._resolved(profile)
        except LockError:
            locked = {name: version for name, version in self.lock.versions().items() if name in pytorch.PACKAGES}
            if not locked:
                raise
            self.step(f"{', '.join(locked)}: as locked, as no index at hand has newer ones for the target")
            others = [
                text for text in profile.packages.requires if canonicalize_name(Requirement(text).name) not in locked
            ]
            pins = [f"{name}=={version}" for name, version in locked.items()]
            packages = profile.packages.model_copy(update={"requires": [*others, *pins]})
            return self._resolved(profile.model_copy(update={"packages": packages}))

    def _resolved(self, profile: Profile) -> dict[str, str]:
        work = Path(tempfile.mkdtemp(dir=self.work))
        plain = by_version(profile, {})  # a place has no newer versions to look at
        resolution = Resolution(Artefacts(plain, work, self.builds), plain, {}, (), self.step)
        return {package.name: package.version for package in resolution.packages(self.caches)}
