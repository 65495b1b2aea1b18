"""Where profiles, locks and templates are looked for, and the names of what is there; nothing is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from builder.resources import shipped

PROFILES_VARIABLE = "DRYDOCK_PROFILES"
_NO_PROFILES = ("drydock.toml", "pyproject.toml")  # where a source has its profiles beside these


def own_profile_folders() -> list[Path]:
    """Where a project's own profiles are: DRYDOCK_PROFILES, else ./profiles; they need not be there."""
    named = os.environ.get(PROFILES_VARIABLE)
    return [Path(name) for name in named.split(os.pathsep) if name] if named else [Path("profiles")]


def profile_folders() -> list[Path]:
    """Where profiles are looked for, first wins: the project's own folders, then the built-in ones."""
    # A folder that is not there yet is looked into too: what is remembered of an evaluation must know of it.
    return [*own_profile_folders(), shipped("profiles")]


def project_above() -> Path | None:
    """The nearest folder above the working folder that has profiles: where a command was perhaps meant."""
    if os.environ.get(PROFILES_VARIABLE):
        return None
    return next((folder for folder in Path.cwd().parents if any(names_in(folder / "profiles"))), None)


def profile_names(folders: Iterable[Path]) -> list[str]:
    """The names of all profiles in `folders`, sorted."""
    return sorted({name for folder in folders for name in names_in(folder)})


def names_in(folder: Path) -> Iterator[str]:
    """The names of the profiles that are in a folder, in no order."""
    return (path.stem for path in folder.glob("*.toml") if "." not in path.stem and path.name not in _NO_PROFILES)
