"""Open a package of a profile for editing, and discard that again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from builder.author.patching.ownership import check_editable, locked_package
from builder.author.patching.worktree import MARK, Mark, close, package_files, read_mark
from builder.consent import Builds
from builder.embedded.errors import StageError
from builder.embedded.patches import patch_package
from builder.errors import PatchError, UsageError
from builder.files import display
from builder.lock.finder import Artefacts
from builder.lock.model import Artefact
from builder.project.catalogue import Catalogue
from builder.project.sources import consent
from builder.report import Reporter
from builder.script.plan import Plan


def start(name: str, package: str, folder: Path | None, catalogue: Catalogue, report: Reporter) -> Path:
    """Put the files of a locked package, patched as the profile `name` has it, into `folder` to be edited.

    Without `folder` it is ./patch-NAME-PACKAGE. One that has this package open is left as it is. Raises UsageError
    where the folder is something else, ProfileError, LockError, ToolError.
    """
    check_editable(catalogue, name)
    plan = catalogue.plan(name)
    locked = locked_package(plan.lock, package)
    folder = (folder or Path(f"patch-{name}-{locked.name}")).absolute()
    if display(folder).startswith("-"):
        raise UsageError(f"{display(folder)} would be taken for an option", hint="use another name")
    if _is_open(folder, name, locked):
        report.step(f"{locked.name} {locked.version} is open already in {display(folder)}, which was left as it is")
        return folder
    with report.busy(f"opening {locked.name} {locked.version}"):
        _open(plan, locked, folder, None if locked.is_wheel else consent.check(name, catalogue.entry(name).content))
    return folder


def _is_open(folder: Path, name: str, package: Artefact) -> bool:
    """Return whether the package is open there. Raises UsageError where something else is there."""
    if not os.path.lexists(folder):
        return False
    if (folder / MARK).is_file():
        mark = read_mark(folder)
        if (mark.profile, mark.sha256) == (name, package.sha256):
            return True
        raise UsageError(
            f"{display(folder)} has {mark.package} {mark.version} of {mark.profile} open",
            hint=f"drydock patch commit {display(folder)}, or drydock patch abort, or another folder: --dir",
        )
    if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
        raise UsageError(
            f"{display(folder)} already exists, and was not made by Drydock", hint="use another folder: --dir DIR"
        )
    return False


def _open(plan: Plan, package: Artefact, folder: Path, builds: Builds) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that one rename brings all of it.
    with tempfile.TemporaryDirectory(prefix=".drydock-patch-", dir=folder.parent) as work:
        site = Artefacts(plan.profile, Path(work), builds).unpacked(package, copy=True)
        try:
            for patch in plan.lock.patches:
                if patch.package == package.name:
                    patch_package(site, patch.model_dump(), plan.texts[patch.file])
        except StageError as error:
            raise PatchError(str(error), hint=f"drydock lock {plan.profile.name}") from None
        made = Path(work) / "made"
        files = package_files(site)
        for path, file in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            file.rename(made / path)
            (made / path).chmod((made / path).stat().st_mode | 0o200)
        (made / MARK).write_text(Mark.of(plan.profile.name, package, files).model_dump_json(indent=1) + "\n")
        if folder.is_dir():
            folder.rmdir()
        made.rename(folder)


def abort(folder: Path) -> list[str]:
    """Delete the edited `folder`, but for files that Drydock did not make; returns their paths.

    Raises UsageError where it is not an open folder.
    """
    mark = read_mark(folder)
    return close(folder.resolve(), mark)
