"""The project that a profile is made for: its own code, which the profile names; its own name is nothing to require."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.errors import ProfileError, Where
from builder.files import display
from builder.profile.fields import PROJECT_PATH
from builder.project.code import FILE, OLD, is_package, name_of, read
from builder.project.requirements.model import Imported
from builder.project.snapshot import Snapshot
from builder.script.code import Code


@dataclass(frozen=True)
class Own:
    """The project's own code: the `path` for the profile, what is there, and why there is none."""

    path: str | None = None
    code: Code | None = None
    note: str | None = None


def own_code(source: Path | None, profile: Path, imported: Imported) -> Own:
    """Return the package whose pyproject.toml is beside `source`, for the file of a `profile` in the same project.

    Requirements by its name are left out of `imported`: they mean the project. Nothing of it is run.
    """
    files = Snapshot()
    top = profile.absolute().parent.parent
    folder = top if source is None or source.is_dir() else source.absolute().parent

    def content(path: Path) -> bytes | None:
        return files.content(path, {})

    said = canonicalize_name(imported.name) if imported.name and source and source.name in OLD else None
    for name in dict.fromkeys((name_of(top, content), name_of(folder, content), said)):
        _leave_out(name, imported, Where(source.name if source is not None else FILE))
    try:
        if not is_package(folder, content):
            return Own()
        path = str(folder.resolve().relative_to(top.resolve()))
    except ProfileError:  # which the reader of pyproject.toml says, where that is read
        return Own()
    except ValueError:
        return Own(note=f"{display(folder / FILE)} is not below {display(top)}: [project] cannot name its code")
    if not re.fullmatch(PROJECT_PATH, path):
        return Own(note=f"{path} is not a path that [project] can have: its code cannot be imported")
    try:
        return Own(path, read(top, path, profile.name, content))
    except ProfileError as error:
        return Own(note=f"[project] was not written: {error.message}")


def command_of(code: Code, folder: Path) -> list[str]:
    """The command of a trainer that a project's own code is likely to have; empty where nothing says so."""
    programs = sorted(code.entry_points.get("console_scripts", {}))
    for fitting in (r"(^|[-_])train$", r"(^|[-_])train", r""):
        trainers = [name for name in programs if re.search(fitting, name)]
        if trainers:
            break
    if len(trainers) == 1:
        return trainers
    module = Path(code.marker).name
    return ["python", "-m", module] if (folder / code.marker / "__main__.py").is_file() else []


def _leave_out(name: str | None, imported: Imported, where: Where) -> None:
    for text in list(imported.requires):
        parsed = Requirement(text)
        if name is not None and canonicalize_name(parsed.name) == name:
            imported.requires.remove(text)
            more = "".join(f" --extra {extra}" for extra in sorted(parsed.extras))
            hint = f"; for what its extras require: drydock import {FILE}{more}" if more else ""
            why = f"the project itself, never a package of an index{hint}"
            imported.leave(text, why, where)
