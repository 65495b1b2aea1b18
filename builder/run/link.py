"""A link in a project to the current generation of a profile: which editors and uv use as its virtual environment.

It goes through $DRYDOCK_HOME/profiles/NAME, so it follows every build and rollback, and its target is never
collected.
"""

from __future__ import annotations

import os
from pathlib import Path

from builder.errors import UsageError
from builder.files import link_atomically, not_ours
from builder.store import generations


def link(name: str, path: Path) -> None:
    """Make `path` a link to the current generation of `name`; replaces a link to another profile's.

    Raises UsageError where another file is there, or its folder does not exist.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder", hint="use another place: --out")
    target = generations.link(name)
    if os.path.lexists(path) and not (path.is_symlink() and path.readlink().parent == target.parent):
        raise not_ours(path, "--out", "drydock link")
    link_atomically(str(target), path)
