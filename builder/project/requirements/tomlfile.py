"""Foreign TOML: its data, with errors that name the line, and where in it anything stands."""

from __future__ import annotations

import tomllib
from typing import Any

from builder.errors import ProfileError, Where
from builder.profile.toml_lines import line_in, line_of, loads


def parsed(path: str, text: str) -> dict[str, Any]:
    """Return the data in a TOML text. Raises ProfileError where it is not TOML."""
    try:
        return loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"not TOML: {ascii(str(error))[1:-1]}", where=Where(path, line_in(error, text))) from None


class Places:
    """Where things stand in a TOML text."""

    def __init__(self, path: str, text: str, *, tables_only: bool = False) -> None:
        """With `tables_only`, the places of tables alone: for a lock, which may have very many keys."""
        self._path, self._text, self._tables_only = path, text, tables_only

    def where(self, *keys: str | int) -> Where:
        """The place of what the keys lead to, or of its nearest parent that is written.

        >>> Places("a.toml", '[a]\\nb = [\\n  "x",\\n  "y"]\\n[[c]]\\n[[c]]\\nd = 1\\n').where("a", "b", 1)
        Where(file='a.toml', line=4, key=None)
        """
        return Where(self._path, line_of(self._text, keys, tables_only=self._tables_only))
