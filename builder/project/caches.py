"""The caches of this project: those of DRYDOCK_CACHE, then those of drydock.toml."""

from __future__ import annotations

import os
from pathlib import Path

from builder.embedded.caches import places
from builder.project import config

_READ_BY_SCRIPTS = ("", "file", "http", "https")


def cache_places() -> list[str]:
    """All caches, in the order in which they are asked. Raises ProfileError."""
    said = config.find()
    return list(dict.fromkeys([*places(), *(_from_here(place, said) for place in said.caches)]))


def _from_here(place: str, said: config.Config) -> str:
    """A folder is named from where drydock.toml is. Without the folders above: white space in them would part it."""
    if said.file is None or "://" in place or place[:1] in "/~" or said.file.parent == Path.cwd():
        return place
    return os.path.relpath(said.file.parent / place)


def is_read_by_scripts(place: str) -> bool:
    """Whether a generated script can read a cache by itself; others are for `drydock pull`."""
    return (place.partition("://")[0].lower() if "://" in place else "") in _READ_BY_SCRIPTS
