"""The project's own code as a script makes it importable: from the working tree, with metadata of its own. Pure.

Beside the folders to import from, Python gets one with the project's `.dist-info`, so that importlib.metadata finds its
version and entry points, and the shell one with its console scripts. Nothing of it is in the key.
Sources: the specifications "Recording installed projects" and "Entry points" of packaging.python.org.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from builder.embedded.hashes import sha256

REFERENCE = re.compile(
    r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)(\s*:\s*(?P<object>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*))?", re.ASCII
)
"""What an entry point refers to: names of Python, so that nothing else can become code."""
PROGRAMS = ("console_scripts", "gui_scripts")
"""The groups of entry points that are programs."""

_PROGRAM = """\
#!/usr/bin/env python
import sys

from {module} import {first}

if __name__ == "__main__":
    sys.exit({object}())
"""


@dataclass(frozen=True)
class Code:
    """The code of a project.

    `roots` are the folders to import from, relative to the project's folder ("" is that itself), and `marker` is a file
    or folder in it by which a script knows it. `name` is None where it has no pyproject.toml, and then no metadata.
    `entry_points` are by group, then by name.
    """

    roots: tuple[str, ...]
    marker: str
    name: str | None = None
    version: str = ""
    entry_points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def programs(self) -> dict[str, str]:
        """The texts of its console scripts, by name."""
        return {name: _program(text) for group in PROGRAMS for name, text in self.entry_points.get(group, {}).items()}

    @property
    def metadata(self) -> dict[str, str]:
        """The texts of its `.dist-info`, by relative path; METADATA is the last."""
        if self.name is None:
            return {}
        folder = f"{canonicalize_name(self.name).replace('-', '_')}-{self.version}.dist-info"
        files = {"INSTALLER": "drydock\n"}
        if self.entry_points:
            files["entry_points.txt"] = "\n".join(_section(*group) for group in self.entry_points.items())
        files["METADATA"] = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
        files = {"RECORD": "".join(f"{folder}/{name},,\n" for name in (*files, "RECORD")), **files}
        return {f"{folder}/{name}": text for name, text in files.items()}

    @property
    def digest(self) -> str:
        """Of the files that are made for it; it names their folder."""
        return sha256(repr((self.programs, self.metadata)).encode())[:32]


def _program(reference: str) -> str:
    found = REFERENCE.fullmatch(reference)
    if found is None or found["object"] is None:
        raise ValueError(f"not a program: {reference}")
    return _PROGRAM.format(module=found["module"], first=found["object"].partition(".")[0], object=found["object"])


def _section(group: str, points: Mapping[str, str]) -> str:
    return "".join([f"[{group}]\n", *(f"{name} = {reference}\n" for name, reference in points.items())])
