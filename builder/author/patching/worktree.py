"""The folder in which a package is edited: the package's files as the profile has them, and a mark that it is ours.

accelerate/...          paths are those of site-packages; what installing makes (dist-info, scripts) is left out
.drydock-patch.json     which profile, which file of which package, and what we put here
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from builder.embedded import state
from builder.errors import PatchError, UsageError
from builder.files import display
from builder.lock.model import Artefact
from builder.profile.fields import ProfileName

MARK = ".drydock-patch.json"
# Where installing puts scripts and data; a package of such a name is a package all the same.
_NOT_PACKAGES = ("bin", "etc", "include", "share")


class Mark(BaseModel):
    """The mark in an open folder; `files` are the paths that Drydock put there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: ProfileName
    package: str
    version: str
    sha256: str
    files: list[str]

    @classmethod
    def of(cls, profile: str, package: Artefact, files: Iterable[str]) -> Mark:
        """The mark of a folder with `files` of a locked package."""
        return cls(
            profile=profile,
            package=package.name,
            version=package.version,
            sha256=package.sha256,
            files=sorted(files),
        )


def read_mark(folder: Path) -> Mark:
    """The mark in a folder. Raises UsageError where the folder is not one of ours."""
    try:
        return Mark.model_validate_json(state.read_bytes(folder / MARK, state.LARGE) or b"")
    except ValidationError:
        what = "does not exist" if not os.path.lexists(folder) else "was not opened by `drydock patch start`"
        raise UsageError(f"{display(folder)} {what}", hint="open a package: drydock patch start NAME PACKAGE") from None


def package_files(site: Path) -> dict[str, Path]:
    """Return the files of a package in a folder of its own, by path, without scripts and dist-info."""
    files = walk(site)
    outside = {f"{name}/" for name in _NOT_PACKAGES if f"{name}/__init__.py" not in files}
    return {
        path: file
        for path, file in files.items()
        if "/" in path or path != ".lock"
        if not path.partition("/")[0].endswith(".dist-info") and not path.startswith(tuple(outside))
    }


def walk(folder: Path) -> dict[str, Path]:
    """Every file below `folder`, by its path from there; without bytecode, and without our mark.

    Raises PatchError for anything but a file or a folder: no link is followed.
    """
    found: dict[str, Path] = {}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                path = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting += [] if entry.name == "__pycache__" else [f"{path}/"]
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a symbolic link" if entry.is_symlink() else "not a plain file"
                    raise PatchError(
                        f"{display(folder)}/{path} is {kind}", hint="a patch changes lines of files: put a file there"
                    )
                elif path != MARK:
                    found[path] = folder / path
    return dict(sorted(found.items()))


def changed_files(before: Mapping[str, Path], after: Mapping[str, Path]) -> dict[str, tuple[bytes, bytes]]:
    """The files that differ, each with its bytes before and after.

    Raises PatchError where a file was added, removed, changed its mode, or is not text: a patch cannot express that.
    """
    for what, paths in (("was added", after.keys() - before.keys()), ("is gone", before.keys() - after.keys())):
        if paths:
            raise PatchError(
                f"{_listed(paths)} {what}: a patch may change files, not create or delete them",
                hint="remove it again" if what == "was added" else "restore it, if need be as an empty file",
            )
    changed = {}
    for path, one in before.items():
        two = after[path]
        if (one.stat().st_mode ^ two.stat().st_mode) & stat.S_IXUSR:
            raise PatchError(f"the mode of {path} changed: a patch may change lines of files, and nothing else")
        if one.stat().st_size != two.stat().st_size or one.read_bytes() != two.read_bytes():
            changed[path] = (one.read_bytes(), two.read_bytes())
    for path, contents in changed.items():
        if not all(_is_text(content) for content in contents):
            raise PatchError(f"{path} is not a text in UTF-8: a patch may change lines of text only")
    return changed


def close(folder: Path, mark: Mark) -> list[str]:
    """Delete the files that Drydock put into an open folder, bytecode, and empty folders; returns the other paths."""
    ours = {*mark.files, MARK}
    left = []
    for here, folders, names in os.walk(folder, topdown=False):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        for path in (Path(here) / name for name in [*names, *links]):
            inside = str(path.relative_to(folder))
            if path.parent.name == "__pycache__" or inside in ours:
                path.unlink()
            else:
                left.append(inside)
        if not any(Path(here).iterdir()):
            Path(here).rmdir()
    return sorted(left)


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _listed(paths: Iterable[str]) -> str:
    first, *more = sorted(paths)
    return first if not more else f"{first} (and {len(more)} more)"
