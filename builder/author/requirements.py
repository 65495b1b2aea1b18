"""Requirements in the text of a profile, or of a file of the project's: added, changed or removed; all else stays.

Pure: text in, text out.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from tomlkit.exceptions import TOMLKitError

from builder.errors import ProfileError, UsageError
from builder.profile.model import RequiresFrom
from builder.profile.places import named, place_of
from builder.profile.toml_lines import loads
from builder.project.requirements.pyproject import BLOCK, PYPROJECT


class Place(NamedTuple):
    """Where requirements stand in a text: under these `keys` of TOML, which is a `block` of a script where it says so
    (PEP 723); without keys, one in each line, as in a requirement file of pip's.
    """

    keys: tuple[str, ...]
    block: bool = False

    def __str__(self) -> str:
        *tables, key = self.keys
        return f"[{'.'.join(tables)}] {key}" if tables else key


PROFILE = Place(("packages", "requires"))
_LINES = Place(())


def places_of(entry: RequiresFrom, text: str) -> list[Place]:
    """Where the requirements stand that `[packages] requires-from` takes from a file: first where one is added."""
    if PurePath(entry.file).name == PYPROJECT:
        data = loads(text)
        found = [("project", "dependencies")]
        for tables, wanted in (
            (("project", "optional-dependencies"), entry.extras),
            (("dependency-groups",), entry.groups),
        ):
            inner: Any = data
            for table in tables:
                inner = inner.get(table, {})
            names = {canonicalize_name(name) for name in wanted}
            found += [(*tables, key) for key in inner if canonicalize_name(key) in names]
        return [Place(keys) for keys in found]
    return [Place(("dependencies",), block=True) if entry.file.endswith(".py") else _LINES]


def parsed(text: str) -> Requirement:
    """A requirement as a user types it. Raises UsageError."""
    try:
        found = Requirement(named(text))
        place_of(found)
    except ValueError as error:
        hint = "write it as pip takes it, for instance: 'six>=1.16'"
        raise UsageError(f"{text} is not a requirement (PEP 508): {str(error).splitlines()[0]}", hint=hint) from None
    return found


def listed(text: str, place: Place) -> list[str]:
    """The requirements that stand at a place; none where it is not there."""
    if not place.keys:
        return [found["plain"] for found in map(_line, text.splitlines()) if found]
    found: Any = loads(_toml(text, place))
    for key in place.keys:
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def names(text: str, place: Place) -> set[str]:
    """The packages that are required at a place."""
    return {_key(line)[0] for line in listed(text, place)}


def with_requirements(text: str, place: Place, wanted: Sequence[Requirement]) -> str:
    """The text with the requirements at a place; one of the same package and marker is replaced.

    Raises ProfileError where the text cannot be changed without changing something else.
    """
    lines = listed(text, place)
    for one in wanted:
        at = next((number for number, line in enumerate(lines) if _key(line) == _key(str(one))), None)
        lines = [*lines[:at], str(one), *lines[at + 1 :]] if at is not None else [*lines, str(one)]
    return _edited(text, place, lines)


def without_packages(text: str, place: Place, names: Sequence[str]) -> str:
    """The text without the requirements on packages at a place, whatever their markers. Raises ProfileError."""
    gone = {canonicalize_name(name) for name in names}
    return _edited(text, place, [line for line in listed(text, place) if _key(line)[0] not in gone])


def with_builds(text: str, wanted: Mapping[str, Sequence[str]]) -> str:
    """The text of a profile with more in [packages.build]: package to what builds it.

    Raises ProfileError where the text cannot be changed without changing something else.
    """
    data = loads(text)
    data.setdefault("packages", {}).setdefault("build", {}).update({name: list(some) for name, some in wanted.items()})
    try:
        document = tomlkit.parse(text)
        packages: Any = document.setdefault("packages", tomlkit.table(is_super_table=True))
        builds: Any = packages.setdefault("build", tomlkit.table())
        for name, some in wanted.items():
            builds[name] = list(some)
        new = tomlkit.dumps(document)
        if loads(new) == data:
            return new
    except (TOMLKitError, KeyError, TypeError, ValueError, AttributeError, tomllib.TOMLDecodeError):
        pass
    raise ProfileError(
        "[packages.build] is written in a form that Drydock cannot change; add this there: "
        + "; ".join(f"{name} = {json.dumps(list(some))}" for name, some in wanted.items())
    )


def _key(line: str) -> tuple[str, str]:
    try:
        found = Requirement(line)
    except InvalidRequirement:
        return line, ""
    return canonicalize_name(found.name), str(found.marker or "")


def _edited(text: str, place: Place, lines: list[str]) -> str:
    """The text with `lines` at a place: those that stand there stay as they are, with their comments."""
    if not place.keys:
        return "".join(_edited_lines(text, lines))
    if not place.block:
        return _edited_toml(text, place, lines)
    block = _block(text)
    new = _edited_toml(_toml(text, place), place, lines)
    content = "".join(f"# {line}\n" if line else "#\n" for line in new.splitlines())
    return text[: block.start("content")] + content + text[block.end("content") :]


def _block(text: str) -> re.Match[str]:
    return next(match for match in BLOCK.finditer(text) if match["type"] == "script")


def _toml(text: str, place: Place) -> str:
    if not place.block:
        return text
    return "".join(
        f"{line[2:] if line.startswith('# ') else line[1:]}\n" for line in _block(text)["content"].splitlines()
    )


def _edited_toml(text: str, place: Place, lines: list[str]) -> str:
    *tables, key = place.keys
    wanted = loads(text)
    inner: Any = wanted
    try:
        for table in tables:
            inner = inner.setdefault(table, {})
        if place.keys[0] == "project" and "dependencies" in inner.get("dynamic", ()):
            raise ProfileError("the dependencies of the project are dynamic: another file has them; write there")
        # What else is in a list, such as a group that a group includes, stays at its end.
        others = [one for one in inner.get(key, []) if not isinstance(one, str)]
        inner[key] = [*lines, *others]
        document = tomlkit.parse(text)
        at: Any = document
        for table in tables:
            at = at.setdefault(table, tomlkit.table())
        if key not in at:
            at[key] = tomlkit.array()
        _change(at[key], lines)
        new = tomlkit.dumps(document)
        if _same(loads(new), wanted, place):
            return new
    except (TOMLKitError, KeyError, TypeError, ValueError, AttributeError, tomllib.TOMLDecodeError):
        pass
    raise ProfileError(
        f"{place} is written in a form that Drydock cannot change; add this there: "
        + ", ".join(tomlkit.string(line).as_string() for line in lines)
    )


def _same(one: Any, other: Any, place: Place) -> bool:
    """Whether two documents say the same, whatever the order at a place."""
    for document in (one, other):
        inner = document
        *tables, key = place.keys
        for table in tables:
            inner = inner[table]
        inner[key] = sorted(inner[key], key=str)
    return bool(one == other)


def _change(array: Any, lines: list[str]) -> None:
    for number in reversed(range(len(array))):
        if not isinstance(array[number], str):
            continue
        same = [line for line in lines if _key(line) == _key(array[number])]
        if not same:
            del array[number]
        elif same[0] != array[number]:
            array[number] = same[0]
    there = {_key(line) for line in array if isinstance(line, str)}
    written = array.as_string()
    indent = re.search(r"\n([ \t]+)", written)
    for line in lines:
        if _key(line) not in there:
            array.add_line(line, indent=indent[1] if indent else "    ") if "\n" in written else array.append(line)


# A requirement, options of its own, and a comment (pip, "Requirements File Format").
_LINE = re.compile(r"(?P<plain>[^#\s-](?:(?!\s+--|\s+#).)*?)(?P<options>\s+--.*?|\s*\\)?(?P<comment>\s+#.*)?\s*$")


def _line(line: str) -> re.Match[str] | None:
    found = _LINE.match(line)
    try:
        Requirement(found["plain"] if found else "")
    except InvalidRequirement:
        return None
    return found


def _edited_lines(text: str, lines: list[str]) -> Iterator[str]:
    wanted = {_key(line): line for line in lines}
    end = "\r\n" if "\r\n" in text else "\n"
    for line in text.splitlines(keepends=True):
        found = _line(line)
        new = wanted.pop(_key(found["plain"]), None) if found else None
        if found is None or new == found["plain"]:
            yield line
            continue
        if found["options"]:
            raise ProfileError(
                f"the line of {found['plain']} has options or hashes of its own",
                hint="change the file that it was made from",
            )
        if new is not None:
            yield f"{new}{found['comment'] or ''}{end}"
    if wanted and text and not text.endswith("\n"):
        yield end
    yield from (f"{line}{end}" for line in wanted.values())
