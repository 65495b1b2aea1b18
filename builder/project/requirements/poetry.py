"""What Poetry requires: `[tool.poetry]` of a pyproject.toml, with its own way to write ranges of versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.project.requirements import indexes
from builder.project.requirements.model import Imported, pick_python, placed_at, rows, safe_excerpt, table

_TABLE = ("tool", "poetry")
At = Callable[..., Where]


def read_poetry(
    tool: Mapping[str, Any], at: At, imported: Imported, *, extras: set[str], groups: set[str], python: str | None
) -> None:
    """Add what the table of Poetry requires, with those extras and groups.

    Raises ProfileError for one that does not exist.
    """
    own = table(tool.get("dependencies"))
    name = tool.get("name")
    imported.name = name if isinstance(name, str) else None
    if isinstance(spec := own.get("python"), str):
        where = at(*_TABLE, "dependencies", "python")
        found = version_range(spec)
        imported.python_range, imported.python_at = found, where
        if found is None:
            imported.leave(f"python = {spec}", "not a range that PEP 440 has", where)
        imported.python = pick_python(found, imported, where, python)
    optional = {str(canonicalize_name(str(key))): value for key, value in table(tool.get("extras")).items()}
    chosen = {str(canonicalize_name(one)) for extra in extras for one in _list(_there("extra", extra, optional, at))}
    for package, value in own.items():
        if package != "python":
            _add(str(package), value, at, (*_TABLE, "dependencies", str(package)), imported, chosen)
    named = table(tool.get("group"))
    there = {str(canonicalize_name(str(key))): (str(key), table(value)) for key, value in named.items()}
    for group in sorted(groups):
        key, value = _there("group", group, there, at)
        for package, wanted in table(value.get("dependencies")).items():
            _add(str(package), wanted, at, (*_TABLE, "group", key, "dependencies", str(package)), imported, set())
    for kind, known, taken in (("extra", optional, extras), ("group", there, groups)):
        if others := [one for one in known if one not in taken]:
            what = f"the {kind}{'s' if others[1:] else ''} {', '.join(others)}"
            imported.leave(
                what,
                f"only by option: --{kind} NAME",
                at(*_TABLE, f"{kind}s" if kind == "extra" else kind),
                expected=True,
            )
    _sources(tool, at, imported)


def _there(kind: str, name: str, known: Mapping[str, Any], at: At) -> Any:
    if name not in known:
        raise ProfileError(
            f'there is no {kind} "{name}" in it',
            hint=f"there: {safe_excerpt(', '.join(sorted(known)) or 'none')}",
            where=at(*_TABLE),
        )
    return known[name]


def _list(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _add(package: str, value: Any, at: At, keys: tuple[str, ...], imported: Imported, chosen: set[str]) -> None:
    where = at(*keys)
    if isinstance(value, str):
        value = {"version": value}
    for wanted in rows(value) or [table(value)]:
        if wanted.get("optional") is True and canonicalize_name(package) not in chosen:
            continue
        extras = f"[{','.join(_list(wanted.get('extras')))}]" if _list(wanted.get("extras")) else ""
        condition = " and ".join(_conditions(wanted))
        if (url := placed_at(wanted)) is not None:
            imported.require(f"{package}{extras} @ {url}{f' ; {condition}' if condition else ''}", where)
            continue
        if place := next((key for key in ("path", "file") if key in wanted), None):
            imported.leave(
                package, f"comes from a {place}, not from an index", where, package=str(canonicalize_name(package))
            )
            continue
        version = str(wanted.get("version", "*"))
        found = version_range(version)
        if found is None:
            why = "not a range that PEP 440 has"
            imported.leave(f"{package} {version}", why, where, package=str(canonicalize_name(package)))
            continue
        imported.require(f"{package}{extras}{found}{f'; {condition}' if condition else ''}", where)
        if isinstance(source := wanted.get("source"), str):
            imported.index[str(canonicalize_name(package))] = source


def _conditions(wanted: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(marker := wanted.get("markers"), str):
        yield f"({marker})"
    if isinstance(platform := wanted.get("platform"), str):
        yield f"sys_platform == {platform!r}"
    if isinstance(python := wanted.get("python"), str):
        for one in SpecifierSet(version_range(python) or ""):
            yield f"python_version {one.operator} {one.version!r}"


def _sources(tool: Mapping[str, Any], at: At, imported: Imported) -> None:
    """Name the indexes that packages are said to come from; of the others it is said that they are there."""
    urls = {}
    for number, row in enumerate(rows(tool.get("source"))):
        name, url, where = row.get("name"), row.get("url"), at(*_TABLE, "source", number)
        if not isinstance(name, str) or not isinstance(url, str):
            continue
        urls[name] = (url, where)
        if name not in imported.index.values():
            indexes.use([(url, row.get("priority") in ("default", "primary"), where)], imported)
    for package, name in list(imported.index.items()):
        if name not in urls:
            continue
        clean = indexes.clean(urls[name][0], imported, urls[name][1])
        if clean is None:
            del imported.index[package]
        else:
            imported.index[package] = indexes.add(clean, imported, name=name)
    for package, name in list(imported.index.items()):
        if name not in imported.indexes:
            del imported.index[package]


def version_range(text: str) -> str | None:
    """A range of Poetry as one of PEP 440; None where there is no such range.

    >>> [version_range(one) for one in ("^1.2.3", "^0.2.3", "^0.0.3", "~1.2", "1.*", "1.2", ">=1,<2", "*", "^1 || ^3")]
    ['>=1.2.3,<2', '>=0.2.3,<0.3', '>=0.0.3,<0.0.4', '>=1.2,<1.3', '==1.*', '==1.2', '>=1,<2', '', None]
    """
    parts = []
    for part in re.split(r"\s*,\s*|(?<=[\w*])\s+(?=[<>=!~^])", text.strip()):
        if part == "*":
            continue
        found = re.fullmatch(r"([\^~])\s*(\d{1,9}(?:\.\d{1,9})*)([A-Za-z0-9.+-]*)", part)
        if found and not part.startswith("~="):
            parts.append(f">={found[2]}{found[3]},<{_next(found[1], [int(one) for one in found[2].split('.')])}")
        elif re.fullmatch(r"=?\s*\d[\w.+*-]*", part):
            parts.append(f"=={part.lstrip('= ')}")
        else:
            parts.append(part.replace(" ", ""))
    joined = ",".join(parts)
    try:
        _ = SpecifierSet(joined)
    except (InvalidSpecifier, ValueError):
        return None
    return joined


def _next(kind: str, numbers: list[int]) -> str:
    """The version that a range ends before: of the first number that is not zero, or of the second one."""
    place = min(len(numbers), 2) - 1
    if kind == "^":
        place = next((at for at, number in enumerate(numbers) if number), len(numbers) - 1)
    return ".".join(map(str, [*numbers[:place], numbers[place] + 1]))
