"""The text of a profile and where it is, and how the caller says to read one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from builder.errors import Where
from builder.profile.toml_lines import line_of


@dataclass(frozen=True)
class Source:
    """One profile file: where it is, its text, and `scope`, the source where what it extends is looked for first."""

    path: str
    text: str
    scope: str = ""

    def where(self, *key: str | int) -> Where:
        """The place of `key` in this file."""
        return Where(self.path, line_of(self.text, key), ".".join(map(str, key)) or None)


Read = Callable[..., Source]
"""Gives the source of a profile by its name, and by the scope of who extends it, where that has one.

Raises ProfileError where there is none.
"""
