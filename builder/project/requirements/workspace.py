"""Folders of a project that its packages come from: paths and members of a workspace in `[tool.uv.sources]`."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from builder.errors import Where
from builder.project.requirements.model import table
from builder.project.requirements.tomlfile import parsed

if TYPE_CHECKING:
    from builder.project.requirements.pip import Read

Local = Callable[[str], Sequence[str]]
"""The files and folders of a project that a pattern names, relative to it and sorted."""
_MOST = 500  # members that are looked at


def at_path(file: str, path: str) -> str | None:
    """The path in the project that a `file` of it names relative to itself; None where it leads out of that.

    >>> at_path("apps/a/pyproject.toml", "../../libs/core"), at_path("pyproject.toml", "../core")
    ('libs/core', None)
    """
    found = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    return None if found.startswith(("..", "/", "~")) or not found.isprintable() or found == "." else found


def root(file: str, local: Local, read: Read) -> tuple[str, Mapping[str, Any]] | None:
    """The folder of the workspace that a pyproject.toml is in, and its [tool.uv]: the nearest above, or its own.

    Raises ProfileError where a file on the way is not TOML.
    """
    folder = posixpath.dirname(file)
    while True:
        path = posixpath.join(folder, "pyproject.toml")
        if local(path):
            tool = table(table(parsed(path, read(path, Where(file))).get("tool")).get("uv"))
            if "workspace" in tool:
                return folder, tool
        if not folder:
            return None
        folder = posixpath.dirname(folder)


def member(package: str, folder: str, tool: Mapping[str, Any], local: Local, read: Read) -> str | None:
    """The folder of the member whose project has that name; None where none has. Raises ProfileError."""
    for found in _members(folder, table(tool.get("workspace")), local):
        path = f"{found}/pyproject.toml"
        if local(path):
            name = table(parsed(path, read(path, Where(path))).get("project")).get("name")
            if isinstance(name, str) and canonicalize_name(name) == package:
                return found
    return None


def _members(folder: str, workspace: Mapping[str, Any], local: Local) -> Iterator[str]:
    excluded = [posixpath.join(folder, one) for one in _texts(workspace.get("exclude"))]
    count = 0
    for pattern in _texts(workspace.get("members")):
        for found in local(posixpath.join(folder, pattern).rstrip("/")):
            count += 1
            if count <= _MOST and not any(fnmatchcase(found, one.rstrip("/")) for one in excluded):
                yield found


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
