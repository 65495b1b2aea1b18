"""Locks of other tools, `uv.lock` and `pylock.toml`: each package for one target, at its version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from packaging.markers import Marker
from packaging.pylock import Pylock, PylockUnsupportedVersionError, PylockValidationError
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.profile import markers
from builder.profile.target import Target
from builder.project.requirements import indexes
from builder.project.requirements.model import Imported, pick_python, rows, safe_excerpt, table
from builder.project.requirements.poetry import version_range
from builder.project.requirements.tomlfile import Places, parsed

_ELSEWHERE = 'comes from elsewhere than an index: require it by its place, "NAME @ URL"'


def read_pylock(
    path: str,
    text: str,
    target: Target,
    *,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    python: str | None = None,
) -> Imported:
    """Return the packages of a `pylock.toml` (PEP 751), for the Python that is wanted where it allows that.

    Raises ProfileError where it is not one for `target`.
    """
    data = parsed(path, text)
    try:
        lock = Pylock.from_dict(data)
    except (PylockValidationError, PylockUnsupportedVersionError) as error:
        raise ProfileError(f"not a pylock.toml (PEP 751): {safe_excerpt(str(error))}", where=Where(path)) from None
    imported = Imported()
    spec = str(lock.requires_python) if lock.requires_python is not None else None
    at = Places(path, text, tables_only=True).where
    imported.python = pick_python(spec, imported, Places(path, text).where("requires-python"), python)
    here = {
        **markers.environment(target, imported.python),
        "extras": {str(canonicalize_name(extra)) for extra in extras},
        "dependency_groups": {*(lock.default_groups or ()), *groups},
    }
    if lock.environments and not any(_holds(one, here, Where(path)) for one in lock.environments):
        raise ProfileError(
            f"it is not for {target.platform}", hint="name another target: --platform", where=Where(path)
        )
    sources = []
    for number, package in enumerate(lock.packages):
        where = at("packages", number)
        if package.marker is not None and not _holds(package.marker, here, where):
            continue
        if package.is_direct or package.version is None:
            imported.leave(package.name, _ELSEWHERE, where)
            continue
        imported.require(f"{package.name}=={package.version}", where)
        if package.index:
            sources.append((str(package.name), package.index, where))
    indexes.by_registry(sources, imported)
    return imported


def _holds(marker: Marker, here: Mapping[str, Any], where: Where) -> bool:
    try:
        return marker.evaluate(here, context="lock_file")
    except (ValueError, RecursionError):  # as in `_applies`
        raise ProfileError("an invalid marker (PEP 508)", where=where) from None


def read_uv_lock(
    path: str,
    text: str,
    target: Target,
    *,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    python: str | None = None,
) -> Imported:
    """Return the packages of a `uv.lock` that its project needs on `target`, with `extras` and dependency `groups`, for
    the Python that is wanted where it allows that.

    Raises ProfileError where it is not one, and for an extra or group that the project does not have.
    """
    return _UvLock(path, text, target).read(extras, groups, python)


class _UvLock:
    def __init__(self, path: str, text: str, target: Target) -> None:
        self._path, self._text, self._target = path, text, target
        self._data = parsed(path, text)
        self._packages = [row for row in rows(self._data.get("package")) if isinstance(row.get("name"), str)]
        self._by_name: dict[str, list[Mapping[str, Any]]] = {}
        for row in self._packages:
            self._by_name.setdefault(row["name"], []).append(row)
        self._number = {id(row): number for number, row in enumerate(rows(self._data.get("package")))}
        self._at = Places(path, text, tables_only=True).where
        self._imported = Imported()
        self._sources: list[tuple[str, str, Where]] = []
        self._done: set[tuple[int, str]] = set()

    def read(self, extras: Sequence[str], groups: Sequence[str], python: str | None) -> Imported:
        if self._data.get("version") != 1 or not self._packages:
            raise ProfileError("not a uv.lock that this Drydock can read", where=Where(self._path))
        spec = self._data.get("requires-python")
        imported = self._imported
        where = Places(self._path, self._text[: self._text.find("[[")]).where("requires-python")
        imported.python = pick_python(spec if isinstance(spec, str) else None, imported, where, python)
        root = self._root()
        self._environment = {
            **markers.environment(self._target, imported.python),
            "extras": _chosen(root["name"], extras, groups),
            "dependency_groups": set[str](),
        }
        imported.name = root["name"]
        self._done.add((id(root), ""))
        self._all(rows(root.get("dependencies")))
        for kind, wanted, key in (("extra", extras, "optional-dependencies"), ("group", groups, "dev-dependencies")):
            there = {canonicalize_name(str(name)): value for name, value in table(root.get(key)).items()}
            for name in map(canonicalize_name, wanted):
                if name not in there:
                    known = ", ".join(sorted(there)) or "none"
                    raise ProfileError(
                        f'there is no {kind} "{name}" in it',
                        hint=f"there: {safe_excerpt(known)}",
                        where=Where(self._path),
                    )
                self._all(rows(there[name]))
            if others := [name for name in there if name not in map(canonicalize_name, wanted)]:
                what = f"the {kind}{'s' if others[1:] else ''} {', '.join(others)}"
                imported.leave(what, f"only by option: --{kind} NAME", self._where(root), expected=True)
        indexes.by_registry(self._sources, imported)
        imported.requires.sort()
        return imported

    def _where(self, row: Mapping[str, Any]) -> Where:
        return self._at("package", self._number[id(row)])

    def _root(self) -> Mapping[str, Any]:
        """The project itself."""
        own = [row for row in self._packages if {"virtual", "editable"} & table(row.get("source")).keys()]
        here = [row for row in own if "." in table(row["source"]).values()]
        if len(here or own) != 1:
            raise ProfileError(
                f"it has {len(own)} projects, none of them in its own folder, so it is not clear which one is meant",
                hint="uv export --package NAME -o requirements.txt, and import that",
                where=Where(self._path),
            )
        return (here or own)[0]

    def _all(self, dependencies: Sequence[Mapping[str, Any]]) -> None:
        # A list instead of recursion: the file decides how deep this goes.
        waiting = list(dependencies)
        while waiting:
            wanted = waiting.pop()
            name = wanted.get("name")
            named = self._by_name.get(str(name), [])
            where = self._where(named[0]) if named else Where(self._path)
            if not isinstance(name, str) or not self._applies(wanted.get("marker"), where):
                continue
            package = self._package(wanted, where)
            if package is None:
                continue
            extras = wanted.get("extra")
            for extra in ("", *(extras if isinstance(extras, list) else ())):
                if (id(package), str(extra)) not in self._done:
                    self._done.add((id(package), str(extra)))
                    more = (
                        table(package.get("optional-dependencies")).get(extra) if extra else package.get("dependencies")
                    )
                    waiting += rows(more)
            self._take(package, self._where(package))

    def _take(self, package: Mapping[str, Any], where: Where) -> None:
        source = table(package.get("source"))
        registry, version = source.get("registry"), package.get("version")
        if package["name"] == self._imported.name:
            return  # by an extra of its own
        if {"virtual", "editable"} & source.keys():
            self._imported.leave(package["name"], "a project of this workspace is not installed", where)
        elif (place := _place(source)) is not None:
            self._imported.require(f"{package['name']} @ {place}", where)
        elif not isinstance(registry, str) or "://" not in registry or not isinstance(version, str):
            self._imported.leave(package["name"], _ELSEWHERE, where)
        elif f"{package['name']}=={version}" not in self._imported.requires:
            self._imported.require(f"{package['name']}=={version}", where)
            self._sources.append((package["name"], registry, where))

    def _package(self, wanted: Mapping[str, Any], where: Where) -> Mapping[str, Any] | None:
        """Return the entry that a dependency means: by version and source if the lock has them, else by markers."""
        fitting = [
            row
            for row in self._by_name.get(wanted["name"], ())
            if wanted.get("version") in (None, row.get("version")) and wanted.get("source") in (None, row.get("source"))
        ]
        if len(fitting) > 1:
            fitting = [row for row in fitting if self._any_applies(row.get("resolution-markers"), where)]
        if len(fitting) != 1:
            self._imported.leave(wanted["name"], f"{len(fitting)} of them are in the lock for this target", where)
            return None
        return fitting[0]

    def _any_applies(self, found: Any, where: Where) -> bool:
        return not isinstance(found, list) or any(self._applies(one, where) for one in found)

    def _applies(self, marker: Any, where: Where) -> bool:
        if not isinstance(marker, str):
            return True
        try:
            return Marker(_for_lists(marker)).evaluate(self._environment, context="lock_file")
        except (ValueError, RecursionError):  # InvalidMarker, UndefinedComparison, and digits without end
            raise ProfileError("an invalid marker (PEP 508)", where=where) from None


def _place(source: Mapping[str, Any]) -> str | None:
    """The place that uv's lock has for a package, at its commit; None for an index or a folder.

    >>> _place({"git": "https://host/x?subdirectory=lib&rev=v1#c0ffee"})
    'git+https://host/x@c0ffee#subdirectory=lib'
    """
    if isinstance(url := source.get("git"), str):
        address, _, commit = url.partition("#")
        address, _, query = address.partition("?")
        subfolder = re.search(r"(?:^|&)subdirectory=([^&]+)", query)
        return f"git+{address}@{commit}{f'#subdirectory={unquote(subfolder[1])}' if subfolder else ''}"
    return source["url"] if isinstance(source.get("url"), str) else None


def _chosen(project: str, extras: Sequence[str], groups: Sequence[str]) -> set[str]:
    """The names that uv gives to extras and groups that exclude each other (uv, `UniversalMarker`).

    >>> sorted(_chosen("forge", ["old"], ["dev"]))
    ['extra-5-forge-old', 'group-5-forge-dev', 'project-5-forge']
    """
    own = f"{len(project)}-{project}"
    named = [(kind, one) for kind, names in (("extra", extras), ("group", groups)) for one in names]
    return {f"project-{own}", *(f"{kind}-{own}-{canonicalize_name(one)}" for kind, one in named)}


def _for_lists(marker: str) -> str:
    """A marker of uv on one extra as one on all that are chosen, of which there may be several (PEP 751).

    >>> _for_lists("sys_platform == 'linux' or extra != 'extra-5-forge-old'")
    "sys_platform == 'linux' or 'extra-5-forge-old' not in extras"
    """
    marker = re.sub(r"""\bextra\s*==\s*('[^']*'|"[^"]*")""", r"\1 in extras", marker)
    return re.sub(r"""\bextra\s*!=\s*('[^']*'|"[^"]*")""", r"\1 not in extras", marker)


def read_poetry_lock(
    path: str, text: str, target: Target, *, groups: Sequence[str] = (), python: str | None = None
) -> Imported:
    """Return the packages of a `poetry.lock` of Poetry 2 for a target, those of the group main and of `groups`.

    Raises ProfileError where it is not one: an older one does not say which group needs what.
    """
    data, at = parsed(path, text), Places(path, text, tables_only=True).where
    packages = rows(data.get("package"))
    if "metadata" not in data or not all(isinstance(one.get("groups"), list) for one in packages):
        raise ProfileError(
            "not a lock of Poetry 2.1 or newer, which says which group needs a package",
            hint="update it: poetry lock; or import pyproject.toml",
            where=Where(path),
        )
    imported = Imported()
    spec = table(data["metadata"]).get("python-versions")
    range_ = version_range(spec) if isinstance(spec, str) else None
    imported.python = pick_python(range_, imported, Where(path), python)
    here = {**markers.environment(target, imported.python), "extras": set[str](), "dependency_groups": set[str]()}
    wanted, sources = {"main", *map(canonicalize_name, groups)}, []
    for number, row in enumerate(packages):
        where, name, version = at("package", number), row.get("name"), row.get("version")
        if row.get("optional") is True or not wanted & {*row["groups"]} or not isinstance(name, str):
            continue
        marker, source = row.get("markers"), table(row.get("source"))
        texts = [marker] if isinstance(marker, str) else [table(marker).get(group) for group in sorted(wanted)]
        if not any(not isinstance(one, str) or _holds(_marker(one, where), here, where) for one in texts):
            continue
        if source and source.get("type") != "legacy":
            imported.leave(name, _ELSEWHERE, where, package=str(canonicalize_name(name)))
            continue
        imported.require(f"{name}=={version}", where)
        if isinstance(url := source.get("url"), str):
            sources.append((name, url, where))
    indexes.by_registry([("", "", Where(path))] * len(packages) + sources, imported)
    return imported


def _marker(text: str, where: Where) -> Marker:
    try:
        return Marker(text)
    except (ValueError, RecursionError):
        raise ProfileError("an invalid marker (PEP 508)", where=where) from None
