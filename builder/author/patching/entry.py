"""The entry of a patch in the text of a profile: added or changed, and everything else left as it was written.

Pure: text in, text out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from builder.errors import ProfileError
from builder.profile.toml_lines import loads


def with_entry(text: str, entry: Mapping[str, str]) -> str:
    """A profile's text with `entry` among its [[patches]]; one of the same `file` gets its values.

    Raises ProfileError where the text cannot be changed without changing something else.
    """
    wanted = loads(text)
    patches = wanted.setdefault("patches", [])
    there = next((number for number, patch in enumerate(patches) if patch["file"] == entry["file"]), None)
    if there is None:
        patches.append(dict(entry))
        # After everything else, where TOML takes a table of an array too, no line above is touched. An array that is
        # written as one grows in its place.
        end = "" if text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        tries = [
            text + end + "\n".join(["[[patches]]", *_lines(entry)]) + "\n",
            _edited(text, lambda array: array.append(tomlkit.inline_table() | dict(entry))),
        ]
    else:
        patches[there] |= entry
        tries = [_edited(text, lambda array: array[there].update(entry))]
    for new in tries:
        if new is not None and _parsed(new) == wanted:
            return new
    lines = "\n".join(f"  {line}" for line in ["[[patches]]", *_lines(entry)])
    raise ProfileError(f"the profile is written in a form that Drydock cannot change; add this yourself:\n{lines}")


def _edited(text: str, edit: Any) -> str | None:
    try:
        document = tomlkit.parse(text)
        edit(document["patches"])
        return tomlkit.dumps(document)
    except (TOMLKitError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _lines(entry: Mapping[str, str]) -> list[str]:
    return [f"{key} = {tomlkit.string(value).as_string()}" for key, value in entry.items()]


def _parsed(text: str) -> Any:
    try:
        return loads(text)
    except tomllib.TOMLDecodeError:
        return None
