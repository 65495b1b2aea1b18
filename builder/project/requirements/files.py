"""What the files of `[packages] requires-from` require, and a profile with that in it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.files import display
from builder.profile.model import Override, Profile, RequiresRead
from builder.project.requirements.found import Asked, Found
from builder.project.requirements.indexes import for_target as indexes_for_target
from builder.project.requirements.model import Imported, decoded, safe_excerpt
from builder.project.requirements.pip import read_requirements
from builder.project.requirements.pyproject import PYPROJECT, Wanted, read_inline, read_pyproject
from builder.project.requirements.workspace import Local

_LARGEST = 1 << 20

Content = Callable[[Path], bytes | None]
"""What a file has; None where there is none. Raises ProfileError."""


def with_requirements(profile: Profile, asked: Sequence[Asked], own: Sequence[str], content: Content) -> Found:
    """Return `profile` with what the files that are `asked` require; `own` are the names of the project itself.

    What the profile says of a package itself counts: its requirement, its index, its override. Raises ProfileError
    where a file does not exist or says what a lock cannot have, and for a Python that it excludes.
    """
    if not asked:
        return Found(profile)
    packages, found = profile.packages, Found(profile)
    decided = {canonicalize_name(Requirement(text).name) for text in packages.requires}
    overridden = {canonicalize_name(Requirement(one.requirement).name) for one in packages.overrides}
    requires: dict[str, None] = {}
    entries, overrides = [], list(packages.overrides)
    index: dict[str, str] = {}
    indexes: dict[str, str] = {}
    day, days = packages.exclude_newer, dict(packages.exclude_newer_package)
    for one in asked:
        read = _Files(one, profile, own, content).read()
        indexes_for_target(read, profile.target, one.where)
        _check_python(read, profile, one)
        _check_nothing_lost(read, decided, one)
        found.left_out += [left for left in read.left_out if left.package is None and not left.expected]
        kept = sorted({text for text in read.requires if canonicalize_name(Requirement(text).name) not in decided})
        found.places |= {
            str(canonicalize_name(Requirement(text).name)): read.places.get(text, one.where) for text in kept
        }
        entries.append(RequiresRead(**one.entry.model_dump(), requires=kept))
        requires |= dict.fromkeys(kept)
        overrides += [
            Override(requirement=text, reason=why)
            for text, why in read.overrides
            if canonicalize_name(Requirement(text).name) not in overridden
        ]
        index |= read.index
        indexes |= read.indexes
        day = read.exclude_newer if day is None else day
        days = {**read.exclude_newer_package, **days}
    index = {package: name for package, name in index.items() if package not in decided} | packages.index
    combined = packages.model_copy(
        update={
            "requires": [*packages.requires, *sorted(requires)],
            "requires_from": entries,
            "overrides": list({one.requirement: one for one in overrides}.values()),
            "index": index,
            "exclude_newer": day,
            "exclude_newer_package": days,
        }
    )
    used = {name: url for name, url in indexes.items() if name in index.values()}
    found.profile = profile.model_copy(update={"packages": combined, "indexes": {**used, **profile.indexes}})
    return found


def paths_of(folder: Path) -> Local:
    """Finds files and folders of a project by a pattern, and none that a link leads out of it to."""
    top = folder.resolve()

    def local(pattern: str) -> list[str]:
        try:
            found = [one for one in folder.glob(pattern) if one.resolve().is_relative_to(top)]
        except (ValueError, NotImplementedError, OSError):  # a pattern that is none, or an absolute one
            return []
        return sorted(one.relative_to(folder).as_posix() for one in found)

    return local


class _Files:
    """The files of one project, for one entry of `requires-from`."""

    def __init__(self, asked: Asked, profile: Profile, own: Sequence[str], content: Content) -> None:
        self._asked, self._folder = asked, asked.folder
        self._own, self._content = own, content
        entry = asked.entry
        self._wanted = Wanted(
            entry.extras, entry.groups, profile.target, profile.python.series, local=paths_of(asked.folder)
        )

    def read(self) -> Imported:
        """What the file requires, with places as they are from the working directory."""
        try:
            found = self._read()
        except ProfileError as error:
            error.where = self._displayed(error.where) if error.where is not None else self._asked.where
            raise
        found.places = {text: self._displayed(where) for text, where in found.places.items()}
        found.python_at = self._displayed(found.python_at) if found.python_at is not None else None
        found.left_out = [replace(one, where=self._displayed(one.where)) for one in found.left_out]
        return found

    def _read(self) -> Imported:
        file, entry = self._asked.entry.file, self._asked.entry
        text = self.text(file, None)
        if Path(file).name == PYPROJECT:
            return read_pyproject(file, text, self._wanted, self.text)
        if entry.extras or entry.groups:
            raise ProfileError(
                f"{file} has neither extras nor groups", hint="only a pyproject.toml has them", where=None
            )
        if Path(file).suffix == ".py":
            return self._without_own(read_inline(file, text, self._wanted))
        if Path(file).suffix in (".txt", ".in"):
            return self._without_own(read_requirements(file, text, self.text, self._wanted))
        raise ProfileError(
            f"{file} is not a file of requirements", hint="known: pyproject.toml, requirements.txt, a script (.py)"
        )

    def text(self, path: str, mentioned: Where | None) -> str:
        """The text of a file of the project. Raises ProfileError."""
        file = self._folder / path
        if not file.resolve().is_relative_to(self._folder.resolve()):
            raise ProfileError(f"{safe_excerpt(path)} leads out of the project", hint="copy it there", where=mentioned)
        found = self._content(file)
        if found is None:
            raise ProfileError(
                f"{display(file)} does not exist", hint="name a file of the project, or bring it back", where=mentioned
            )
        where = Where(path)
        if len(found) > _LARGEST:
            raise ProfileError(f"larger than {_LARGEST >> 20} MiB: not a file of this kind", where=where)
        return decoded(found, where)

    def _without_own(self, found: Imported) -> Imported:
        """The same, with the project's own name replaced by what the project, with those extras, requires."""
        for text in list(found.requires):
            parsed = Requirement(text)
            if canonicalize_name(parsed.name) not in self._own:
                continue
            found.requires.remove(text)
            where = found.places.pop(text)
            wanted = replace(self._wanted, extras=sorted(parsed.extras))
            project = read_pyproject(PYPROJECT, self.text(PYPROJECT, where), wanted, self.text)
            found.requires += project.requires
            found.places |= project.places
            found.index, found.indexes = {**project.index, **found.index}, {**project.indexes, **found.indexes}
            found.left_out += project.left_out
        return found

    def _displayed(self, where: Where) -> Where:
        file = where.file
        return where if Path(file).is_absolute() else where._replace(file=display(self._folder / file))


def _check_python(read: Imported, profile: Profile, asked: Asked) -> None:
    if read.python_range is None:
        return
    series, release = profile.python.series, profile.python.release
    try:
        allowed = SpecifierSet(read.python_range)
        if any(allowed.contains(one) for one in ([release] if release else _releases(series))):
            return
    except (InvalidSpecifier, ValueError):
        return  # the reader has said so
    raise ProfileError(
        f"it is for Python {safe_excerpt(read.python_range)}, and {profile.name} is for {profile.python.version}",
        hint=f'name one that both allow: [python] version = "{read.python}" in {profile.name}.toml',
        where=read.python_at or asked.where,
    )


def _releases(series: str) -> Iterator[str]:
    return (f"{series}.{patch}" for patch in range(30))


def _check_nothing_lost(read: Imported, decided: Container[str], asked: Asked) -> None:
    """Raise ProfileError for what is required and cannot be carried over, unless the profile says itself what to do."""
    for one in read.left_out:
        if one.package is not None and one.package not in decided:
            named = f'say it in the profile: [packages] requires = ["{one.package}==..."], which counts'
            hint = named if one.package else f"write its packages into another file, and name that: {asked.where}"
            raise ProfileError(f"{one.what}: {one.why}", hint=hint, where=one.where)
