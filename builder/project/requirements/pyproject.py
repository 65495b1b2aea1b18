"""`pyproject.toml`: [project] (PEP 621), dependency groups (PEP 735), and what uv adds to them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.profile import markers
from builder.profile.target import Target
from builder.profile.toml_lines import line_of
from builder.project.requirements import indexes
from builder.project.requirements.model import Imported, pick_python, requirement, rows, shown, table
from builder.project.requirements.tomlfile import line_with, parsed

PYPROJECT = "pyproject.toml"
_DEPENDENCIES = ("project", "dependencies")
_EXTRAS = ("project", "optional-dependencies")
_GROUPS = ("dependency-groups",)
_MOST = 1000  # extras, each with its condition


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a project: some of its extras and dependency groups, for a target and a Python such as "3.11".

    Where the target is not known, what depends on it is left out; without a Python it is the one that the file allows.
    """

    extras: Sequence[str] = ()
    groups: Sequence[str] = ()
    target: Target | None = None
    python: str | None = None


ALL = Wanted()
"""What a project requires in any case."""


def read_pyproject(path: str, text: str, wanted: Wanted = ALL) -> Imported:
    """Return the requirements of the project in `text`, as far as they are `wanted`.

    Raises ProfileError where it is not TOML or not a project, and for an extra or group that it does not have.
    """
    return _Reader(path, text, parsed(path, text), wanted).read()


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
    data = parsed(path, "\n" * before + "\n".join(lines))
    own = {key: data[key] for key in ("dependencies", "requires-python") if key in data}
    return _Reader(path, text, {"project": own, "tool": data.get("tool")}, wanted).read()


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
    def __init__(self, path: str, text: str, data: Mapping[str, Any], wanted: Wanted) -> None:
        self._path, self._text, self._data = path, text, data
        self._wanted = wanted
        self._extras = {str(canonicalize_name(one)) for one in wanted.extras}
        self._groups = {str(canonicalize_name(one)) for one in wanted.groups}
        self._imported = Imported()
        self._name = ""
        self._optional: dict[str, Any] = {}

    def read(self) -> Imported:
        project = table(self._data.get("project"))
        if "project" not in self._data:
            poetry = "poetry" in table(self._data.get("tool"))
            raise ProfileError(
                "there is no [project] in it",
                hint="Poetry has a format of its own: poetry export -o requirements.txt, and import that"
                if poetry
                else "name a requirements.txt, or write [project] (PEP 621)",
                where=Where(self._path),
            )
        imported = self._imported
        name = project.get("name")
        imported.name = name if isinstance(name, str) else None
        self._name = str(canonicalize_name(imported.name or ""))
        self._optional = {
            str(canonicalize_name(str(key))): value
            for key, value in table(project.get("optional-dependencies")).items()
        }
        spec = project.get("requires-python")
        if isinstance(spec, str):
            imported.python_range, imported.python_at = spec, self._where("requires-python")
            imported.python = pick_python(spec, imported, imported.python_at)
        for key in project.get("dynamic", ()) if isinstance(project.get("dynamic"), list) else ():
            if key in ("dependencies", "optional-dependencies"):
                lost = "" if key == "dependencies" or self._extras else None
                why = "dynamic: only the project's build backend knows them"
                if files := self._dynamic_files(key):
                    why = f"dynamic: setuptools reads them from {', '.join(map(shown, files))}; name that file instead"
                imported.leave(key, why, self._where("dynamic"), package=lost)
        self._list(project.get("dependencies"), "dependencies", _DEPENDENCIES)
        self._chosen("extra", self._extras, self._optional)
        grouped = table(self._data.get("dependency-groups"))
        named = {str(canonicalize_name(str(key))): self._group(str(key), grouped) for key in grouped}
        self._chosen("group", self._groups, named)
        self._uv(table(table(self._data.get("tool")).get("uv")))
        imported.settle_constraints()
        return imported

    def _dynamic_files(self, key: str) -> list[str]:
        """The requirement files that setuptools is told to read for a key."""
        dynamic = table(table(table(self._data.get("tool")).get("setuptools")).get("dynamic"))
        files = table(dynamic.get(key)).get("file")
        return [one for one in (files if isinstance(files, list) else [files]) if isinstance(one, str)]

    def _chosen(self, kind: str, chosen: Collection[str], there: Mapping[str, Any]) -> None:
        for name in sorted(chosen):
            if name not in there:
                known = ", ".join(sorted(there)) or "none"
                raise ProfileError(
                    f'there is no {kind} "{name}" in it', hint=f"there: {shown(known)}", where=Where(self._path)
                )
            under = _EXTRAS if kind == "extra" else _GROUPS
            self._list(there[name], name, under, (name,) if kind == "extra" else ())
        for name in there:
            if name not in chosen:
                why = f"only by option: --{kind} {name}"
                self._imported.leave(f"the {kind} {name}", why, self._where(name), expected=True)

    def _list(self, value: Any, key: str, under: tuple[str, ...], above: tuple[str, ...] = ()) -> None:
        for text in self._texts(value, key):
            for one, where in self._expanded(text, None, set(), under, above):
                self._imported.require(one, where)

    def _texts(self, value: Any, key: str) -> list[str]:
        if value is not None and (not isinstance(value, list) or not all(isinstance(one, str) for one in value)):
            raise ProfileError(f"{shown(key)} is not a list of requirements", where=self._where(key))
        return value or []

    def _expanded(
        self,
        text: str,
        condition: Marker | None,
        seen: set[tuple[str, str]],
        under: tuple[str, ...],
        above: tuple[str, ...],
    ) -> Iterator[tuple[str, Where]]:
        """A requirement, of a list `under` a key, with its place.

        One by the project's own name is what its extras require, as `all = ["me[fast]"]` means.

        Extras may name each other in a circle, as pip and uv allow: `above` are those that led here, whose requirements
        hold on fewer conditions anyway. `seen` are all, with their conditions.
        """
        where = self._where(text, *under)
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
                self._imported.leave(text, f"there is no extra {shown(extra)} in this project", where)
            for one in self._texts(self._optional.get(extra), extra):
                yield from self._expanded(one, parsed.marker, seen, _EXTRAS, (*above, extra))

    def _group(self, name: str, grouped: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[str]:
        """The requirements of a group with those that it includes (PEP 735)."""
        if name in above:
            raise ProfileError(f"the group {shown(name)} includes itself", where=self._where(name))
        found: list[str] = []
        by_name = {canonicalize_name(str(key)): str(key) for key in grouped}
        items = grouped[name]
        for item in items if isinstance(items, list) else ():
            if isinstance(item, str):
                found.append(item)
            elif isinstance(other := table(item).get("include-group"), str):
                if canonicalize_name(other) not in by_name:
                    raise ProfileError(
                        f"the group {shown(name)} includes {shown(other)}, which does not exist",
                        where=self._where(name),
                    )
                found += self._group(by_name[canonicalize_name(other)], grouped, (*above, name))
        return found

    def _uv(self, tool: Mapping[str, Any]) -> None:
        for text in _texts(tool.get("override-dependencies")):
            where = self._where(text)
            if (parsed := requirement(text, where)) is not None:
                self._imported.overrides.append((str(parsed), f"override-dependencies in {self._path}"))
        for text in _texts(tool.get("constraint-dependencies")):
            where = self._where(text)
            if (parsed := requirement(text, where)) is not None:
                self._imported.constraints.append((parsed, where))
        urls = {}
        for row in rows(tool.get("index")):
            name, url = row.get("name"), row.get("url")
            if isinstance(url, str) and isinstance(name, str):
                urls[name] = url
            if isinstance(url, str) and (row.get("default") or not isinstance(name, str)):
                indexes.use([(url, bool(row.get("default")), self._where(url))], self._imported)
        for name, value in table(tool.get("sources")).items():
            self._source(canonicalize_name(str(name)), rows(value) or [table(value)], urls)

    def _source(self, package: str, sources: list[Mapping[str, Any]], urls: Mapping[str, str]) -> None:
        """Add the index that uv takes a package from; a package that is not on an index is left out."""
        imported, where = self._imported, self._where(package, "tool", "uv", "sources")
        applies = [one for one in sources if self._applies(one)]
        named = [urls[one["index"]] for one in applies if isinstance(one.get("index"), str) and one["index"] in urls]
        if len(applies) > 1:
            imported.leave(
                f"the sources of {package}", "one per marker; a profile is for one target: name its index", where
            )
        elif named:
            url = indexes.clean(named[0], imported, self._where(named[0]))
            if url is not None:
                imported.index[package] = indexes.add(url, imported, name=applies[0]["index"])
        elif applies:
            kept = [one for one in imported.requires if canonicalize_name(Requirement(one).name) != package]
            if len(kept) < len(imported.requires):
                imported.requires[:] = kept
                why = "comes from elsewhere than an index ([tool.uv.sources])"
                imported.leave(package, why, where, package=package)

    def _applies(self, source: Mapping[str, Any]) -> bool:
        """Whether a source is for what is wanted: by its extra, its group, and its marker (uv, "Dependency sources").

        Where the target is not known, every marker holds.
        """
        for key, chosen in (("extra", self._extras), ("group", self._groups)):
            if isinstance(name := source.get(key), str) and canonicalize_name(name) not in chosen:
                return False
        marker, python = source.get("marker"), self._wanted.python or self._imported.python
        if not isinstance(marker, str) or self._wanted.target is None or python is None:
            return True
        try:
            return Marker(marker).evaluate(markers.environment(self._wanted.target, python))
        except (ValueError, RecursionError):  # InvalidMarker, UndefinedComparison, and digits without end
            raise ProfileError("an invalid marker (PEP 508)", where=self._where(marker)) from None

    def _where(self, mentioned: str, *under: str) -> Where:
        """The first line that has a text, below the key that it stands `under`."""
        after = (line_of(self._text, under) if under else None) or 1
        return Where(self._path, line_with(self._text, mentioned, after) or line_with(self._text, mentioned))


def _both(one: Marker | None, other: Marker | None) -> Marker | None:
    """A marker that holds where both do.

    >>> str(_both(Marker("os_name == 'nt'"), Marker("python_version > '3'")))
    'os_name == "nt" and python_version > "3"'
    """
    if one is None or other is None or str(one) == str(other):
        return one or other
    return Marker(f"({one}) and ({other})")


def _texts(value: Any) -> Iterator[str]:
    yield from (one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
