"""Foreign TOML: parsed with errors that name the line, and lines found again."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from builder.errors import ProfileError, Where
from builder.profile.toml_lines import loads


def parsed(path: str, text: str) -> dict[str, Any]:
    """Return the data in a TOML text. Raises ProfileError where it is not TOML."""
    try:
        return loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise ProfileError(
            f"not TOML: {ascii(str(error))[1:-1]}", where=Where(path, int(found[1]) if found else None)
        ) from None


def lines_of_names(text: str) -> dict[str, int]:
    """The first line of each `name = "..."` in a lock, which may have very many."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if named := re.match(r'\s*name\s*=\s*"([^"]*)"', line):
            found.setdefault(named[1], number)
    return found


def line_with(text: str, mentioned: str, after: int = 1) -> int | None:
    """The first line, from the line `after` on, that has a text in it, as a whole word where it is one; None without.

    A quote may stand in it as TOML writes it.
    """
    written = {mentioned, mentioned.replace('"', '\\"')} - {""}
    patterns = [re.compile(rf"(?<![\w-]){re.escape(one)}(?![\w-])") for one in sorted(written)]
    lines = enumerate(text.split("\n")[after - 1 :], after)
    return next((number for number, line in lines if any(pattern.search(line) for pattern in patterns)), None)
