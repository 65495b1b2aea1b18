"""The text of a profile and where it is."""

from __future__ import annotations

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
