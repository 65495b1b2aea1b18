"""Requirements in the text of a profile or of a pyproject.toml: added, changed or removed; all else as it was written.

Pure: text in, text out.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from tomlkit.exceptions import TOMLKitError

from builder.errors import ProfileError, UsageError
from builder.profile.places import named, place_of
from builder.profile.toml_lines import loads

PROFILE = ("packages", "requires")
PYPROJECT = ("project", "dependencies")
"""Where requirements stand, by table and key."""


def parsed(text: str) -> Requirement:
    """A requirement as a user types it. Raises UsageError."""
    try:
        found = Requirement(named(text))
        place_of(found)
    except ValueError as error:
        hint = "write it as pip takes it, for instance: 'six>=1.16'"
        raise UsageError(f"{text} is not a requirement (PEP 508): {str(error).splitlines()[0]}", hint=hint) from None
    return found


def listed(text: str, place: tuple[str, str]) -> list[str]:
    """The requirements that stand at a place; none where it is not there."""
    table, key = place
    found = loads(text).get(table, {}).get(key, [])
    return [one for one in found if isinstance(one, str)]


def names(text: str, place: tuple[str, str]) -> set[str]:
    """The packages that are required at a place."""
    return {_key(line)[0] for line in listed(text, place)}


def with_requirements(text: str, place: tuple[str, str], wanted: Sequence[Requirement]) -> str:
    """The text with the requirements at a place; one of the same package and marker is replaced.

    Raises ProfileError where the text cannot be changed without changing something else.
    """
    lines = listed(text, place)
    for one in wanted:
        at = next((number for number, line in enumerate(lines) if _key(line) == _key(str(one))), None)
        lines = [*lines[:at], str(one), *lines[at + 1 :]] if at is not None else [*lines, str(one)]
    return _edited(text, place, lines)


def without_packages(text: str, place: tuple[str, str], names: Sequence[str]) -> str:
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
        "[packages.build] is written in a way that cannot be changed here; write there: "
        + "; ".join(f"{name} = {json.dumps(list(some))}" for name, some in wanted.items())
    )


def _key(line: str) -> tuple[str, str]:
    try:
        found = Requirement(line)
    except InvalidRequirement:
        return line, ""
    return canonicalize_name(found.name), str(found.marker or "")


def _edited(text: str, place: tuple[str, str], lines: list[str]) -> str:
    """The text with `lines` at a place: those that stand there stay as they are, with their comments."""
    table, key = place
    wanted = loads(text)
    wanted.setdefault(table, {})[key] = lines
    try:
        document = tomlkit.parse(text)
        tables: Any = document.setdefault(table, tomlkit.table())
        if key not in tables:
            tables[key] = tomlkit.array()
        _change(tables[key], lines)
        new = tomlkit.dumps(document)
        if loads(new) == wanted:
            return new
    except (TOMLKitError, KeyError, TypeError, ValueError, AttributeError, tomllib.TOMLDecodeError):
        pass
    raise ProfileError(
        f"[{table}] {key} is written in a way that cannot be changed here; write there: "
        + ", ".join(tomlkit.string(line).as_string() for line in lines)
    )


def _change(array: Any, lines: list[str]) -> None:
    for number in reversed(range(len(array))):
        same = [line for line in lines if _key(line) == _key(array[number])]
        if not same:
            del array[number]
        elif same[0] != array[number]:
            array[number] = same[0]
    there = {_key(line) for line in array}
    for line in lines:
        if _key(line) not in there:
            array.add_line(line) if "\n" in array.as_string() else array.append(line)
