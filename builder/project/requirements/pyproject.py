"""`pyproject.toml`: [project] (PEP 621), dependency groups (PEP 735), and what uv adds to them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.profile import markers
from builder.profile.target import Target
from builder.project.requirements import indexes
from builder.project.requirements.model import Imported, pick_python, placed_at, requirement, rows, safe_excerpt, table
from builder.project.requirements.tomlfile import Places, parsed
from builder.project.requirements.workspace import Local, at_path, member, root

if TYPE_CHECKING:
    from builder.project.requirements.pip import Read

PYPROJECT = "pyproject.toml"
_DEPENDENCIES = ("project", "dependencies")
_EXTRAS = ("project", "optional-dependencies")
_GROUPS = ("dependency-groups",)
_MOST = 1000  # extras, each with its condition
_ELSEWHERE = "it is set where the lock is made, not in a profile"
_LOST_OF_UV = {
    "build-constraint-dependencies": "a profile says by name what builds a package: [packages.build]",
    "dependency-metadata": "a lock has what the wheels say: for a contradiction, [[packages.overrides]]",
    "extra-build-dependencies": "a profile says by name what builds a package: [packages.build]",
    "find-links": f"{_ELSEWHERE}: export UV_FIND_LINKS there",
    "index-strategy": "a package comes from one index: [packages] index names it",
    "no-build-isolation-package": "a profile says by name what builds a package: [packages.build]",
    "no-index": f"{_ELSEWHERE}: export PIP_NO_INDEX=1 there",
    "prerelease": "a pre-release is locked where a requirement names one: >=2.0rc1",
    "resolution": "a lock has the newest versions that fit",
}
"""Settings that change what is locked; those that do not are none of a profile's, and not mentioned."""

_Item = tuple[str, Where]
"""A requirement and where it stands."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a project: some of its extras and dependency groups, for a target and a Python such as "3.11".

    Where the target is not known, what depends on it is left out; without a Python it is the one that the file allows.
    `local` finds what is in the project, where its folders can be named, and `above` are those that are being read.
    """

    extras: Sequence[str] = ()
    groups: Sequence[str] = ()
    target: Target | None = None
    python: str | None = None
    local: Local | None = None
    above: frozenset[str] = frozenset()


ALL = Wanted()
"""What a project requires in any case."""


def read_pyproject(path: str, text: str, wanted: Wanted = ALL, read: Read | None = None) -> Imported:
    """Return the requirements of the project in `text`, as far as they are `wanted`.

    `read` returns the requirement files that its build backend is told to read.

    Raises ProfileError where it is not TOML or not a project, for an extra or group that it does not have, and where
    only its build backend knows what it requires.
    """
    return _Reader(path, text, parsed(path, text), wanted, read).read()


def read_inline(path: str, text: str, wanted: Wanted = ALL) -> Imported:
    """Return the requirements in the block of a script (PEP 723, "Inline script metadata").

    Raises ProfileError where it has none, or more than one, and where that is not TOML.
    """
    found = [match for match in BLOCK.finditer(text) if match["type"] == "script"]
    if len(found) != 1:
        raise ProfileError(
            "more than one block of requirements" if found else "there is no block of requirements in it (PEP 723)",
            hint="it begins with a line: # /// script",
            where=Where(path),
        )
    block, before = found[0], text[: found[0].start("content")].count("\n")
    # As many lines above as there are, so that an error names the right one.
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in block["content"].splitlines()]
    inner = "\n" * before + "\n".join(lines)
    data = parsed(path, inner)
    own = {key: data[key] for key in ("dependencies", "requires-python") if key in data}
    return _Inline(path, inner, {"project": own, "tool": data.get("tool")}, wanted).read()


def extras_of(text: str) -> list[str]:
    """The extras of the project in `text`, as they are written; none where it is not TOML or has no project."""
    with suppress(ProfileError):
        data = parsed(PYPROJECT, text)
        return list(table(table(data.get("project")).get("optional-dependencies")))
    return []


# The reference implementation's, of PEP 723.
BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""A block in a script, with what it is for and its lines."""


class _Reader:
    def __init__(self, path: str, text: str, data: Mapping[str, Any], wanted: Wanted, read: Read | None = None) -> None:
        self._path, self._data = path, data
        self._at = Places(path, text).where
        self._wanted, self._read = wanted, read
        self._extras = {str(canonicalize_name(one)) for one in wanted.extras}
        self._groups = {str(canonicalize_name(one)) for one in wanted.groups}
        self._imported = Imported()
        self._name, self._python = "", ""
        self._optional: dict[str, list[_Item]] = {}

    def read(self) -> Imported:
        project = table(self._data.get("project"))
        tool = table(self._data.get("tool"))
        if "project" not in self._data:
            if "poetry" in tool:
                return self._of_poetry(table(tool["poetry"]))
            if (found := self._of_setuptools()) is not None:
                return found
            raise ProfileError(
                "there is no [project] in it",
                hint="name a requirements.txt, or write [project] (PEP 621)",
                where=Where(self._path),
            )
        imported = self._imported
        name = project.get("name")
        imported.name = name if isinstance(name, str) else None
        self._name = str(canonicalize_name(imported.name or ""))
        optional = table(project.get("optional-dependencies"))
        self._optional = {
            str(canonicalize_name(str(key))): self._items(value, *_EXTRAS, str(key)) for key, value in optional.items()
        }
        spec = project.get("requires-python")
        if isinstance(spec, str):
            imported.python_range, imported.python_at = spec, self._at("project", "requires-python")
        where = self._at("project", "requires-python")
        self._python = pick_python(imported.python_range, imported, where, self._wanted.python)
        imported.python = None if imported.python_range is None else self._python
        self._dynamic(project.get("dynamic"))
        self._list(self._items(project.get("dependencies"), *_DEPENDENCIES))
        self._chosen("extra", self._extras, self._optional)
        grouped = table(self._data.get("dependency-groups"))
        named = {str(canonicalize_name(str(key))): self._group(str(key), grouped) for key in grouped}
        self._chosen("group", self._groups, named)
        self._uv(table(tool.get("uv")))
        imported.settle_constraints()
        return imported

    def _of_poetry(self, tool: Mapping[str, Any]) -> Imported:
        from builder.project.requirements.poetry import read_poetry

        extras, groups, python = self._extras, self._groups, self._wanted.python
        read_poetry(tool, self._at, self._imported, extras=extras, groups=groups, python=python)
        return self._imported

    def _of_setuptools(self) -> Imported | None:
        """What a setup.cfg or setup.py beside it requires; None where there is neither, or nothing of it there."""
        from builder.project.requirements.setuptools import CONFIG, SCRIPT, read_setup_cfg, read_setup_py

        if self._read is None:
            return None
        where = Where(self._path)
        for name, reader in ((CONFIG, read_setup_cfg), (SCRIPT, read_setup_py)):
            path = posixpath.join(posixpath.dirname(self._path), name)
            try:
                text = self._read(path, where)
            except ProfileError:
                continue
            if name == SCRIPT or "install_requires" in text:
                return reader(path, text, self._wanted, self._read)
        return None

    def _dynamic(self, keys: Any) -> None:
        """Add what the backend reads from files that it is told; what only it knows is left out.

        Raises ProfileError where that is all that the project requires.
        """
        dynamic = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
        for key in ("dependencies", "optional-dependencies"):
            if key not in dynamic:
                continue
            where = self._at("project", "dynamic")
            files = self._files_of(key)
            if not files and key == "dependencies":
                if (found := self._of_setuptools()) is not None:
                    self._imported.add(found)
                    continue
                raise ProfileError(
                    "its dependencies are dynamic: only its build backend knows them",
                    hint="the backend can say them: uv pip compile pyproject.toml -o requirements.txt, and import that",
                    where=where,
                )
            if not files:
                lost = "" if self._extras else None
                self._imported.leave(key, "dynamic: only the project's build backend knows them", where, package=lost)
            for extra, names in files.items():
                if extra:
                    self._optional[str(canonicalize_name(extra))] = []
                if not extra or canonicalize_name(extra) in self._extras:
                    for name in names:
                        self._file(name, where)

    def _file(self, name: str, where: Where) -> None:
        """Add what a requirement file beside the project requires."""
        if self._read is None:
            why = f"dynamic: the backend reads them from {safe_excerpt(name)}; name that file instead"
            self._imported.leave("dependencies", why, where, package="")
            return
        from builder.project.requirements.pip import inside, read_requirements  # which reads projects too

        path = inside(name, where)
        self._imported.add(read_requirements(path, self._read(path, where), self._read, self._wanted))

    def _files_of(self, key: str) -> dict[str, list[str]]:
        """The requirement files that setuptools or Hatch are told to read for a key, by extra, "" for none."""
        tool = table(self._data.get("tool"))
        stated = table(table(table(tool.get("setuptools")).get("dynamic")).get(key))
        hook = table(table(table(table(tool.get("hatch")).get("metadata")).get("hooks")).get("requirements_txt"))
        if key == "dependencies":
            named = {"": stated.get("file") or hook.get("files") or hook.get("filename")}
        else:
            named = {str(extra): table(value).get("file") for extra, value in stated.items()}
            named |= {str(extra): value for extra, value in table(hook.get("optional-dependencies")).items()}
        lists = {extra: value if isinstance(value, list) else [value] for extra, value in named.items()}
        found = {extra: [one for one in value if isinstance(one, str)] for extra, value in lists.items()}
        return {extra: value for extra, value in found.items() if value}

    def _chosen(self, kind: str, chosen: Collection[str], there: Mapping[str, list[_Item]]) -> None:
        for name in sorted(chosen):
            if name not in there:
                known = ", ".join(sorted(there)) or "none"
                raise ProfileError(
                    f'there is no {kind} "{name}" in it', hint=f"there: {safe_excerpt(known)}", where=Where(self._path)
                )
            self._list(there[name], (name,) if kind == "extra" else ())
        if others := [name for name in there if name not in chosen]:
            named = f"the {kind}{'s' if others[1:] else ''} {', '.join(others)}"
            at = self._at(*(_EXTRAS if kind == "extra" else _GROUPS))
            self._imported.leave(named, f"only by option: --{kind} NAME", at, expected=True)

    def _list(self, items: Sequence[_Item], above: tuple[str, ...] = ()) -> None:
        for item in items:
            for one, where in self._expanded(item, None, set(), above):
                self._imported.require(one, where)

    def _items(self, value: Any, *keys: str) -> list[_Item]:
        if value is not None and (not isinstance(value, list) or not all(isinstance(one, str) for one in value)):
            raise ProfileError(f"{safe_excerpt(keys[-1])} is not a list of requirements", where=self._at(*keys))
        return [(text, self._at(*keys, number)) for number, text in enumerate(value or [])]

    def _expanded(
        self, item: _Item, condition: Marker | None, seen: set[tuple[str, str]], above: tuple[str, ...]
    ) -> Iterator[_Item]:
        """A requirement with its place. One by the project's own name is what its extras require: `all = ["me[fast]"]`.

        Extras may name each other in a circle, as pip and uv allow: `above` are those that led here, whose requirements
        hold on fewer conditions anyway. `seen` are all, with their conditions.
        """
        text, where = item
        parsed = requirement(text, where)
        if parsed is None:
            yield text, where
            return
        parsed.marker = _both(condition, parsed.marker)
        if canonicalize_name(parsed.name) != self._name:
            yield str(parsed), where
            return
        for extra in sorted(str(canonicalize_name(one)) for one in parsed.extras):
            if extra in above or (extra, str(parsed.marker)) in seen:
                continue
            seen.add((extra, str(parsed.marker)))
            if len(seen) > _MOST:
                raise ProfileError("more extras of extras than a project has", where=where)
            if extra not in self._optional:
                self._imported.leave(text, f"there is no extra {safe_excerpt(extra)} in this project", where)
            for one in self._optional.get(extra, ()):
                yield from self._expanded(one, parsed.marker, seen, (*above, extra))

    def _group(self, name: str, grouped: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[_Item]:
        """The requirements of a group with those that it includes (PEP 735)."""
        if name in above:
            raise ProfileError(f"the group {safe_excerpt(name)} includes itself", where=self._at(*_GROUPS, name))
        found: list[_Item] = []
        by_name = {canonicalize_name(str(key)): str(key) for key in grouped}
        items = grouped[name]
        for number, item in enumerate(items if isinstance(items, list) else ()):
            where = self._at(*_GROUPS, name, number)
            if isinstance(item, str):
                found.append((item, where))
            elif isinstance(other := table(item).get("include-group"), str):
                if canonicalize_name(other) not in by_name:
                    raise ProfileError(
                        f"the group {safe_excerpt(name)} includes {safe_excerpt(other)}, which does not exist",
                        where=where,
                    )
                found += self._group(by_name[canonicalize_name(other)], grouped, (*above, name))
        return found

    def _uv(self, tool: Mapping[str, Any]) -> None:
        """Add what uv is told of packages; what a profile does not have of it is left out."""
        for text, where in self._uv_texts(tool, "override-dependencies"):
            if (parsed := requirement(text, where)) is not None:
                self._imported.overrides.append((str(parsed), f"override-dependencies in {self._path}"))
        for text, where in self._uv_texts(tool, "constraint-dependencies"):
            if (parsed := requirement(text, where)) is not None:
                self._imported.constraints.append((parsed, where))
        urls = self._indexes(tool)
        for name, value in {**self._inherited(tool), **table(tool.get("sources"))}.items():
            self._source(str(name), rows(value) or [table(value)], urls)
        self._days(tool)
        for key in tool:
            if key in _LOST_OF_UV:
                self._imported.leave(f"[tool.uv] {key}", _LOST_OF_UV[key], self._at("tool", "uv", str(key)))

    def _indexes(self, tool: Mapping[str, Any]) -> dict[str, tuple[str, Where]]:
        """Add the indexes that are asked for every package; returns those with names."""
        sources = table(tool.get("sources")).values()
        used = [one.get("index") for value in sources for one in rows(value) or [table(value)]]
        urls: dict[str, tuple[str, Where]] = {}
        asked = [(url, False, where) for url, where in self._uv_texts(tool, "extra-index-url")]
        if isinstance(url := tool.get("index-url"), str):
            asked.append((url, True, self._at("tool", "uv", "index-url")))
        for number, row in enumerate(rows(tool.get("index"))):
            name, url, where = row.get("name"), row.get("url"), self._at("tool", "uv", "index", number, "url")
            if not isinstance(url, str):
                continue
            if isinstance(name, str):
                urls[name] = (url, where)
            if row.get("default") or (not row.get("explicit") and name not in used):
                asked.append((url, bool(row.get("default")), where))
        indexes.use(asked, self._imported)
        return urls

    def _days(self, tool: Mapping[str, Any]) -> None:
        """Add the days until which files count, as a profile has them; one that moves is left out."""
        why = "a profile names a day that stays: [packages] exclude-newer"
        if "exclude-newer" in tool:
            day = _day(tool["exclude-newer"])
            if day is None:
                at = self._at("tool", "uv", "exclude-newer")
                self._imported.leave(f"[tool.uv] exclude-newer = {tool['exclude-newer']!r}", why, at)
            self._imported.exclude_newer = day or None
        for name, value in table(tool.get("exclude-newer-package")).items():
            day = _day(value)
            if day is None:
                at = self._at("tool", "uv", "exclude-newer-package", str(name))
                self._imported.leave(f"the day of {name}, {value!r}", why, at)
            else:
                self._imported.exclude_newer_package[str(canonicalize_name(str(name)))] = day

    def _uv_texts(self, tool: Mapping[str, Any], key: str) -> Iterator[_Item]:
        value = tool.get(key)
        for number, text in enumerate(value if isinstance(value, list) else ()):
            if isinstance(text, str):
                yield text, self._at("tool", "uv", key, number)

    def _source(self, name: str, sources: list[Mapping[str, Any]], urls: Mapping[str, tuple[str, Where]]) -> None:
        """Add the index that uv takes a package from; a package that is not on an index is left out."""
        imported, package = self._imported, canonicalize_name(name)
        placed = [(one, self._at("tool", "uv", "sources", name, number)) for number, one in enumerate(sources)]
        applies = [(one, where) for one, where in placed if self._applies(one, where)]
        if not applies:
            return
        source, where = applies[0]
        index = source.get("index")
        if len(applies) > 1:
            imported.leave(
                f"the sources of {package}", "one per marker; a profile is for one target: name its index", where
            )
        elif isinstance(index, str) and index in urls:
            url = indexes.clean(*urls[index][:1], imported, urls[index][1])
            if url is not None:
                imported.index[package] = indexes.add(url, imported, name=index)
        else:
            self._place(package, source, where)

    def _inherited(self, tool: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the root of its workspace says of packages that are members, for a project that is one itself."""
        local, read = self._wanted.local, self._read
        if local is None or read is None or "workspace" in tool or not posixpath.dirname(self._path):
            return {}
        above = root(self._path, local, read)
        sources = table(above[1].get("sources")) if above is not None else {}
        return {name: value for name, value in sources.items() if table(value).get("workspace") is True}

    def _place(self, package: str, source: Mapping[str, Any], where: Where) -> None:
        """Require a package from the place that uv takes it from; without one that a profile can name, leave it out."""
        imported = self._imported
        wanted = [one for one in map(Requirement, imported.requires) if canonicalize_name(one.name) == package]
        folder = self._folder(package, source)
        place = f"./{folder}" if folder is not None else placed_at(source)
        for one in wanted:
            imported.requires.remove(str(one))
            if place is None:
                why = "comes from elsewhere than an index ([tool.uv.sources])"
                imported.leave(package, why, where, package=package)
                continue
            extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
            condition = f" ; {one.marker}" if one.marker else ""
            text = f"{package}{extras} @ {place}{condition}"
            if folder is None:
                imported.require(text, where)
            else:
                imported.require_folder(text, where)
                self._places_of(folder, sorted(one.extras), where)

    def _folder(self, package: str, source: Mapping[str, Any]) -> str | None:
        """The folder of the project, or the file in it, that a package comes from; None where it is elsewhere."""
        local, read, path = self._wanted.local, self._read, source.get("path")
        if local is None or read is None:
            return None
        if isinstance(path, str):
            return at_path(self._path, path)
        if source.get("workspace") is not True or (above := root(self._path, local, read)) is None:
            return None
        return member(package, *above, local, read)

    def _places_of(self, folder: str, extras: Sequence[str], where: Where) -> None:
        """Require what a folder requires by a place itself: an index has something else under that name."""
        path, wanted, imported = f"{folder}/{PYPROJECT}", self._wanted, self._imported
        if wanted.local is None or self._read is None or path in wanted.above or not wanted.local(path):
            return
        text = self._read(path, where)
        project = parsed(path, text).get("project")
        if project is None:
            return
        there = {canonicalize_name(one) for one in table(table(project).get("optional-dependencies"))}
        extras = [one for one in extras if canonicalize_name(one) in there]  # what it lacks, uv says
        found = read_pyproject(
            path, text, replace(wanted, extras=extras, groups=(), above=wanted.above | {path}), self._read
        )
        known = {canonicalize_name(Requirement(one).name) for one in imported.requires} | {self._name}
        for one in found.requires:
            requirement = Requirement(one)
            if requirement.url is not None and canonicalize_name(requirement.name) not in known:
                imported.require_folder(one, where)
        imported.left_out += [one for one in found.left_out if one.package and one.package != self._name]

    def _applies(self, source: Mapping[str, Any], where: Where) -> bool:
        """Whether a source is for what is wanted: by its extra, its group, and its marker (uv, "Dependency sources").

        Where the target is not known, every marker holds.
        """
        for key, chosen in (("extra", self._extras), ("group", self._groups)):
            if isinstance(name := source.get(key), str) and canonicalize_name(name) not in chosen:
                return False
        marker = source.get("marker")
        if not isinstance(marker, str) or self._wanted.target is None:
            return True
        try:
            return Marker(marker).evaluate(markers.environment(self._wanted.target, self._python))
        except (ValueError, RecursionError):  # InvalidMarker, UndefinedComparison, and digits without end
            raise ProfileError("an invalid marker (PEP 508)", where=where) from None


class _Inline(_Reader):
    """Of a script: its keys stand at the top."""

    def __init__(self, path: str, text: str, data: Mapping[str, Any], wanted: Wanted) -> None:
        super().__init__(path, text, data, wanted)
        places = Places(path, text)
        self._at = lambda *keys: places.where(*(keys[1:] if keys[0] == "project" else keys))


def _day(value: Any) -> str | Literal[False] | None:
    """The last day that a time of uv allows, UTC; False where every day is, None where that moves or is none.

    >>> _day("2025-07-01"), _day("2025-07-01T00:00:00Z"), _day("7 days"), _day(False)
    ('2025-07-01', '2025-06-30', None, False)
    """
    if value is False:
        return False
    text = value.isoformat() if isinstance(value, date) else str(value)
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return date.fromisoformat(text).isoformat()
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return None
        return (moment.astimezone(UTC) - timedelta(microseconds=1)).date().isoformat()
    except (ValueError, OverflowError):
        return None


def _both(one: Marker | None, other: Marker | None) -> Marker | None:
    """A marker that holds where both do.

    >>> str(_both(Marker("os_name == 'nt'"), Marker("python_version > '3'")))
    'os_name == "nt" and python_version > "3"'
    """
    if one is None or other is None or str(one) == str(other):
        return one or other
    return Marker(f"({one}) and ({other})")
