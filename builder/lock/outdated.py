"""Which packages of a lock have newer versions: `drydock outdated`. Nothing is changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from builder.consent import Builds
from builder.errors import LockError, ToolError
from builder.lock.finder import Artefacts
from builder.lock.model import Lock
from builder.lock.placed import by_version
from builder.lock.resolution import Resolution
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


def outdated(profile: Profile, lock: Lock, builds: Builds) -> list[Outdated]:
    """The packages of `lock` that are not the newest, by name. Raises LockError."""
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
        try:
            update = _versions(profile, Path(work) / "update", builds)
            latest = _versions(profile.model_copy(update={"packages": loose}), Path(work) / "latest", builds)
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


def _versions(profile: Profile, work: Path, builds: Builds) -> dict[str, str]:
    """The newest of every package that a profile allows."""
    work.mkdir()
    plain = by_version(profile, {})  # a place has no newer versions to look at
    found = Resolution(Artefacts(plain, work, builds), plain, {}, (), lambda _: None).packages(())
    return {package.name: package.version for package in found}


def table(rows: Sequence[Outdated]) -> Iterator[str]:
    """The rows under a head, each column as wide as it needs."""
    cells = [("package", "locked", "update", "latest")]
    cells += [(one.name, one.locked, one.update, one.latest) for one in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    for row in cells:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
