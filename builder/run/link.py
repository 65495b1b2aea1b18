"""A link in a project to the current generation of a profile: what editors and uv take for its virtual environment.

It goes through $DRYDOCK_HOME/profiles/NAME, so it follows every build and rollback, and what it leads to is never
collected.
"""

from __future__ import annotations

import os
from pathlib import Path

from builder.errors import UsageError
from builder.files import link_atomically
from builder.store import generations


def link(name: str, path: Path) -> None:
    """Make `path` a link to the current generation of `name`, also where it is one to another profile's.

    Raises UsageError where something is there that this did not make, or no folder for it.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no folder", hint="name another place: --out")
    target = generations.link(name)
    if os.path.lexists(path) and not (path.is_symlink() and path.readlink().parent == target.parent):
        raise UsageError(
            f"{path} is there, and was not made by drydock link", hint="move it away, or name another place: --out"
        )
    link_atomically(str(target), path)
