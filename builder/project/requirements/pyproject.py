"""`pyproject.toml`: [project] (PEP 621), dependency groups (PEP 735), and what uv adds to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.project.requirements import indexes
from builder.project.requirements.model import Imported, pick_python, requirement, rows, shown, table
from builder.project.requirements.tomlfile import line_with, parsed

_MOST = 1000  # extras, each with its condition


def read_pyproject(path: str, text: str, *, extras: Sequence[str] = (), groups: Sequence[str] = ()) -> Imported:
    """Return the requirements of the project in `text`, with those of its `extras` and dependency `groups`.

    Raises ProfileError where it is not TOML or not a project, and for an extra or group that it does not have.
    """
    return _Reader(path, text).read(extras, groups)


class _Reader:
    def __init__(self, path: str, text: str) -> None:
        self._path, self._text = path, text
        self._data = parsed(path, text)
        self._imported = Imported()
        self._name = ""
        self._optional: dict[str, Any] = {}

    def read(self, extras: Sequence[str], groups: Sequence[str]) -> Imported:
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
            imported.python = pick_python(spec, imported, self._where("requires-python"))
        for key in project.get("dynamic", ()) if isinstance(project.get("dynamic"), list) else ():
            if key in ("dependencies", "optional-dependencies"):
                imported.leave(key, "dynamic: only the project's build backend knows them", self._where("dynamic"))
        self._list(project.get("dependencies"), "dependencies")
        self._chosen("extra", extras, self._optional)
        grouped = table(self._data.get("dependency-groups"))
        named = {str(canonicalize_name(str(key))): self._group(str(key), grouped) for key in grouped}
        self._chosen("group", groups, named)
        self._uv(table(table(self._data.get("tool")).get("uv")))
        imported.settle_constraints()
        return imported

    def _chosen(self, kind: str, wanted: Sequence[str], there: Mapping[str, Any]) -> None:
        chosen = {str(canonicalize_name(name)) for name in wanted}
        for name in sorted(chosen):
            if name not in there:
                known = ", ".join(sorted(there)) or "none"
                raise ProfileError(
                    f'there is no {kind} "{name}" in it', hint=f"there: {shown(known)}", where=Where(self._path)
                )
            self._list(there[name], name, (name,) if kind == "extra" else ())
        for name in there:
            if name not in chosen:
                self._imported.leave(f"the {kind} {name}", f"only by option: --{kind} {name}", self._where(name))

    def _list(self, value: Any, key: str, above: tuple[str, ...] = ()) -> None:
        for text in self._texts(value, key):
            for one in self._expanded(text, None, set(), above):
                self._imported.require(one, self._where(text))

    def _texts(self, value: Any, key: str) -> list[str]:
        if value is not None and (not isinstance(value, list) or not all(isinstance(one, str) for one in value)):
            raise ProfileError(f"{shown(key)} is not a list of requirements", where=self._where(key))
        return value or []

    def _expanded(
        self, text: str, condition: Marker | None, seen: set[tuple[str, str]], above: tuple[str, ...]
    ) -> Iterator[str]:
        """A requirement; one by the project's own name is what its extras require, as `all = ["me[fast]"]` means.

        Extras may name each other in a circle, as pip and uv allow: `above` are those that led here, whose requirements
        hold on fewer conditions anyway. `seen` are all, with their conditions.
        """
        where = self._where(text)
        parsed = requirement(text, where)
        if parsed is None:
            yield text
            return
        parsed.marker = _both(condition, parsed.marker)
        if canonicalize_name(parsed.name) != self._name:
            yield str(parsed)
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
                yield from self._expanded(one, parsed.marker, seen, (*above, extra))

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
        imported, where = self._imported, self._where(package)
        named = [urls[one["index"]] for one in sources if isinstance(one.get("index"), str) and one["index"] in urls]
        if len(sources) > 1:
            imported.leave(
                f"the sources of {package}", "one per marker; a profile is for one target: name its index", where
            )
        elif named:
            url = indexes.clean(named[0], imported, self._where(named[0]))
            if url is not None:
                imported.index[package] = indexes.add(url, imported, name=sources[0]["index"])
        else:
            kept = [one for one in imported.requires if canonicalize_name(Requirement(one).name) != package]
            if len(kept) < len(imported.requires):
                imported.requires[:] = kept
                imported.leave(package, "comes from elsewhere than an index ([tool.uv.sources])", where)

    def _where(self, mentioned: str) -> Where:
        return Where(self._path, line_with(self._text, mentioned))


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
