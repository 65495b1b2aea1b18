"""Profiles that require what the same file of the project says: their locks have the same versions, where they can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from packaging.version import Version

from builder.errors import DrydockError
from builder.project import undo
from builder.project.discovery import own_profile_folders, profile_names

if TYPE_CHECKING:
    from builder.lock.model import Lock
    from builder.project.catalogue import Catalogue, Entry
    from builder.report import Reporter

_NAMED = 3


def alike(name: str, catalogue: Catalogue) -> list[str]:
    """The other profiles of the project that can be built and read a file that `name` reads too, sorted."""
    files = _files(catalogue.entry(name))
    if not files:
        return []
    found = []
    for other in profile_names(own_profile_folders()):
        with suppress(DrydockError):  # which is another's to say
            if other != name and catalogue.target(other) is not None and files & _files(catalogue.entry(other)):
                found.append(other)
    return found


def _files(entry: Entry) -> set[str]:
    piece = entry.resolved.flat.get(("packages", "requires-from"))
    return {row["file"] for row in piece.value} if piece is not None else set()


def lock_together(
    names: Iterable[str],
    lock_one: Callable[[str, Mapping[str, Lock]], Lock],
    read: Callable[[], Catalogue],
    report: Reporter,
    *,
    oldest: bool = False,
) -> None:
    """Lock profiles by `lock_one`, which gets the locks that were made before it, and say which versions differ.

    Those of one list of requirements get their locks all, or each keeps the one that it had: on an error of one the
    others are put back. With `oldest` they are locked once more for the oldest versions that one of them needs. `read`
    returns the catalogue as the files are now.
    """
    made: dict[str, Lock] = {}
    steps = undo.Several()
    families: dict[tuple[str, ...], None] = {}
    for name in names:
        family = tuple(sorted([name, *alike(name, read())]))
        entry = read().entry(name)
        steps.begin(name, (entry.lock_path.absolute(), entry.path.absolute()))
        try:
            made[name] = lock_one(name, made)
        except DrydockError:
            if back := steps.take_back(family):
                report.warn(f"the locks of {', '.join(back)}, of the same requirements, are as they were")
            raise
        families[family] = None
    for family in families:
        order = oldest_first({name: made[name] for name in family if name in made}) if oldest else []
        for count, name in enumerate(order[1:], 1):
            made[name] = lock_one(name, {one: made[one] for one in order[:count]})
        for line in differences(locks_of(list(family), read(), made)):
            report.step(line)


def locks_of(names: list[str], catalogue: Catalogue, made: Mapping[str, Lock]) -> dict[str, Lock]:
    """The locks of profiles as far as they can be read; those that were just `made` as they are now."""
    found = dict(made)
    for name in names:
        if name not in made:
            with suppress(DrydockError):
                found[name] = catalogue.lock(name)
    return {name: found[name] for name in names if name in found}


def differences(locks: Mapping[str, Lock]) -> Iterator[str]:
    """The packages whose versions differ between locks, in at most two lines; a build (+cpu) is no difference."""
    rows = list(_differing(locks).items())
    if not rows:
        return
    said = [f"{package} {_describe_versions(versions)}" for package, versions in rows[:_NAMED]]
    yield f"versions that differ: {'; '.join(said)}"
    if len(rows) > _NAMED:
        names = list(locks)
        yield f"and {len(rows) - _NAMED} more: drydock diff {names[0]} {names[1]}"


def oldest_first(locks: Mapping[str, Lock]) -> list[str]:
    """The profiles whose versions differ, that first which has the oldest of what differs: others may have it too.

    Of several packages torch counts, which is there in the fewest versions. Empty where nothing differs.
    """
    rows = _differing(locks)
    if not rows:
        return []
    versions = rows.get("torch") or next(iter(rows.values()))
    return [name for version in sorted(versions, key=Version) for name in versions[version]]


def _differing(locks: Mapping[str, Lock]) -> dict[str, dict[str, list[str]]]:
    """The packages of which there is more than one version: to the versions, and the profiles with each."""
    by_package: dict[str, dict[str, list[str]]] = {}
    for name, lock in locks.items():
        for package, version in lock.versions().items():
            by_package.setdefault(package, {}).setdefault(Version(version).public, []).append(name)
    return {package: versions for package, versions in sorted(by_package.items()) if len(versions) > 1}


def _describe_versions(versions: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{version} in {' and '.join(names)}" for version, names in versions.items())
