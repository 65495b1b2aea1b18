"""Locks of other tools, `uv.lock` and `pylock.toml`: each package for one target, at its version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from packaging.markers import Marker
from packaging.pylock import Pylock, PylockUnsupportedVersionError, PylockValidationError
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.profile import markers
from builder.profile.target import Target
from builder.project.requirements import indexes
from builder.project.requirements.model import Imported, pick_python, rows, shown, table
from builder.project.requirements.tomlfile import line_with, lines_of_names, parsed

_ELSEWHERE = "comes from elsewhere than an index: a lock names packages of an index only"


def read_pylock(
    path: str, text: str, target: Target, *, extras: Sequence[str] = (), groups: Sequence[str] = ()
) -> Imported:
    """Return the packages of a `pylock.toml` (PEP 751). Raises ProfileError where it is not one for `target`."""
    data = parsed(path, text)
    try:
        lock = Pylock.from_dict(data)
    except (PylockValidationError, PylockUnsupportedVersionError) as error:
        raise ProfileError(f"not a pylock.toml (PEP 751): {shown(str(error))}", where=Where(path)) from None
    imported = Imported()
    spec = str(lock.requires_python) if lock.requires_python is not None else None
    imported.python = pick_python(spec, imported, Where(path, line_with(text, "requires-python")))
    here = {
        **markers.environment(target, imported.python),
        "extras": {str(canonicalize_name(extra)) for extra in extras},
        "dependency_groups": {*(lock.default_groups or ()), *groups},
    }
    if lock.environments and not any(_holds(one, here, Where(path)) for one in lock.environments):
        raise ProfileError(
            f"it is not for {target.platform}", hint="name another target: --platform", where=Where(path)
        )
    sources, lines = [], lines_of_names(text)
    for package in lock.packages:
        where = Where(path, lines.get(package.name))
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
    path: str, text: str, target: Target, *, extras: Sequence[str] = (), groups: Sequence[str] = ()
) -> Imported:
    """Return the packages of a `uv.lock` that its project needs on `target`, with `extras` and dependency `groups`.

    Raises ProfileError where it is not one, and for an extra or group that the project does not have.
    """
    return _UvLock(path, text, target).read(extras, groups)


class _UvLock:
    def __init__(self, path: str, text: str, target: Target) -> None:
        self._path, self._text, self._target = path, text, target
        self._data = parsed(path, text)
        self._packages = [row for row in rows(self._data.get("package")) if isinstance(row.get("name"), str)]
        self._by_name: dict[str, list[Mapping[str, Any]]] = {}
        for row in self._packages:
            self._by_name.setdefault(row["name"], []).append(row)
        self._lines = lines_of_names(text)
        self._imported = Imported()
        self._sources: list[tuple[str, str, Where]] = []
        self._done: set[tuple[int, str]] = set()

    def read(self, extras: Sequence[str], groups: Sequence[str]) -> Imported:
        if self._data.get("version") != 1 or not self._packages:
            raise ProfileError("not a uv.lock that this Drydock can read", where=Where(self._path))
        spec = self._data.get("requires-python")
        imported = self._imported
        where = Where(self._path, line_with(self._text, "requires-python"))
        imported.python = pick_python(spec if isinstance(spec, str) else None, imported, where)
        self._environment = markers.environment(self._target, imported.python)
        root = self._root()
        imported.name = root["name"]
        self._done.add((id(root), ""))
        self._all(rows(root.get("dependencies")))
        for kind, wanted, key in (("extra", extras, "optional-dependencies"), ("group", groups, "dev-dependencies")):
            there = {canonicalize_name(str(name)): value for name, value in table(root.get(key)).items()}
            for name in map(canonicalize_name, wanted):
                if name not in there:
                    known = ", ".join(sorted(there)) or "none"
                    raise ProfileError(
                        f'there is no {kind} "{name}" in it', hint=f"there: {shown(known)}", where=Where(self._path)
                    )
                self._all(rows(there[name]))
            for name in there:
                if name not in map(canonicalize_name, wanted):
                    imported.leave(f"the {kind} {name}", f"only by option: --{kind} {name}", Where(self._path))
        indexes.by_registry(self._sources, imported)
        imported.requires.sort()
        return imported

    def _root(self) -> Mapping[str, Any]:
        """The project itself."""
        own = [row for row in self._packages if {"virtual", "editable"} & table(row.get("source")).keys()]
        here = [row for row in own if "." in table(row["source"]).values()]
        if len(here or own) != 1:
            raise ProfileError(
                f"it has {len(own)} projects, and none in its own folder: not known whose packages are meant",
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
            where = Where(self._path, self._lines.get(str(name)))
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
            self._take(package, where)

    def _take(self, package: Mapping[str, Any], where: Where) -> None:
        source = table(package.get("source"))
        registry, version = source.get("registry"), package.get("version")
        if package["name"] == self._imported.name:
            return  # by an extra of its own
        if {"virtual", "editable"} & source.keys():
            self._imported.leave(package["name"], "a project of this workspace is not installed", where)
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
            return Marker(marker).evaluate(self._environment)
        except (ValueError, RecursionError):  # InvalidMarker, UndefinedComparison, and digits without end
            raise ProfileError("an invalid marker (PEP 508)", where=where) from None
