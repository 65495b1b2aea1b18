"""Owners of patches: a profile's own can be changed, inherited and built-in ones cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builder.errors import LockError, ProfileError, UsageError, Where
from builder.files import display
from builder.lock.model import Artefact, Lock
from builder.profile.model import Patch
from builder.project.catalogue import Catalogue


@dataclass(frozen=True)
class Written:
    """A patch of a package, and the profile that it is written in."""

    patch: Patch
    profile: str


def check_editable(catalogue: Catalogue, name: str) -> Path:
    """The file of the profile `name`, which is the user's own. Raises ProfileError where it is built in."""
    path = catalogue.path(name)
    *own, built_in = catalogue.folders
    if path.parent == built_in.absolute() and path.parent.resolve() not in [folder.resolve() for folder in own]:
        raise ProfileError(
            f'"{name}" is built in, and cannot be changed',
            hint=f'extend it in one of your own, profiles/mine.toml: extends = ["{name}"]; then drydock lock mine',
            where=Where(display(path)),
        )
    return path


def patches_of(catalogue: Catalogue, name: str, package: str) -> list[Written]:
    """All patches that the profile `name` has for a package, in the order in which they are applied."""
    found: dict[str, Written] = {}
    for part in catalogue.entry(name).resolved.parts:
        for patch in part.model.patches:
            if patch.package == package:
                found.setdefault(patch.file, Written(patch, part.origin))
    return list(found.values())


def locked_package(lock: Lock, package: str) -> Artefact:
    """A package of a lock, in any spelling of its name. Raises UsageError with the nearest name."""
    import difflib

    from packaging.utils import canonicalize_name

    wanted = canonicalize_name(package)
    for one in lock.packages:
        if one.name == wanted:
            return one
    near = difflib.get_close_matches(wanted, lock.versions(), 1)
    raise UsageError(
        f"{lock.profile} has no package {package!r}",
        hint=f'did you mean "{near[0]}"?' if near else f"to list its packages: drydock profile show {lock.profile}",
    )


def check_same(lock: Lock, package: str, version: str, digest: str) -> Artefact:
    """The locked package, which is still the file that was opened. Raises LockError where it is another."""
    locked = next((one for one in lock.packages if one.name == package), None)
    if locked is None or locked.sha256 != digest:
        now = f"{locked.version} ({locked.file})" if locked else "none"
        raise LockError(
            f"{package} {version} was opened, and {lock.profile} has {now} now",
            hint="open that one in another folder (drydock patch start --dir), and make the change there",
        )
    return locked
