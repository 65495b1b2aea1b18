"""The committed files under generated/NAME/: write them, or say where they differ from their profile."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from builder.embedded import state
from builder.errors import DriftError, DrydockError
from builder.files import check_ours, display, is_being_written, owns, write_atomically
from builder.names import split
from builder.project.evaluate import identity
from builder.resources import version
from builder.script.machinery import canonical
from builder.store.layout import home

if TYPE_CHECKING:
    from builder.project.catalogue import Entry
    from builder.script.plan import Plan
    from builder.script.render import Carried


def generate(name: str, folder: Path, plan: Plan, *, standalone: bool = False, slurm: bool = False) -> list[Path]:
    """Render the profile `name`, which has this `plan`, into `folder`; returns the files that changed.

    With `standalone`, the tools for existing installations are made whole; with `slurm`, or where there is one, a batch
    script is made too. Files that Drydock made for this profile and
    makes no longer are removed. Raises UsageError before anything is written where a file of the user's is in the way.
    """
    from builder.script.templates import make_carried

    # Made anew, and not as a store remembers it: who may write to that has no part in what is committed.
    files = _files(name, folder, plan, make_carried(), standalone=standalone, slurm=slurm)
    for path in (folder / file for file in files):
        check_ours(path, _made_for(name), "--out")
    changed = []
    for file, text in files.items():
        path = folder / file
        if not _has(path, text):
            write_atomically(path, text, executable=_is_executable(file))
            changed.append(path)
    for path in _left_over(name, folder, files):
        path.unlink()
        changed.append(path)
    return changed


def _files(
    name: str, folder: Path, plan: Plan, carries: Carried, *, standalone: bool, slurm: bool
) -> Mapping[str, str]:
    """All files of a folder: what a profile always has, and the batch script where it is asked for or there is one."""
    from builder.script.slurm import batch_script
    from builder.script.templates import rendered, rendered_batch_script

    files = rendered(plan, carries, standalone=standalone)
    batch = batch_script(plan.profile)
    if slurm or owns(folder / batch, _made_for(name)):
        files[batch] = rendered_batch_script(plan, carries)
    return files


def check(name: str, folder: Path, plan: Plan, *, standalone: bool = False, slurm: bool = False) -> None:
    """Raises DriftError where `folder` does not have exactly what the `plan` of the profile `name` renders to."""
    from builder.project.carried import carried

    files = _files(name, folder, plan, carried(), standalone=standalone, slurm=slurm)
    wrong = [folder / file for file, text in files.items() if not _has(folder / file, text)]
    wrong += _left_over(name, folder, files)
    if not wrong:
        return
    told = ", ".join(display(path) for path in wrong)
    if other := rendered_by_another(name, folder, plan):
        raise DriftError(
            f"not what Drydock {version()} renders the profile {name} to: {told}, by Drydock {other}",
            hint='agree on one: required-version = "…" in drydock.toml',
        )
    raise DriftError(f"not what the profile {name} renders to: {told}", hint=f"drydock render {name}")


def rendered_by_another(name: str, folder: Path, plan: Plan) -> str | None:
    """The version of Drydock that rendered the run script of the profile `name` in `folder`; None where it is ours.

    So is that of a file that does not say, or is not there.
    """
    head = state.read_head(folder / plan.profile.run_script, 16384).decode(errors="replace")
    found = re.search(r"^# Drydock ([0-9A-Za-z.+!-]{1,40}), machinery sha256", head, re.MULTILINE)
    return found[1] if found and _made_for(name)(head) and found[1] != version() else None


def check_again(entry: Entry, folder: Path) -> None:
    """As `check`; what was right is not rendered again until it, or something that it is made from, has changed.

    Raises DriftError, or ProfileError or LockError where there is no plan.
    """
    now = _now(entry, folder)
    try:
        note = home() / "cache" / "generated" / _digest([entry.name, str(folder.absolute())])
    except DrydockError:  # there is no home
        note = None
    if now is not None and note is not None and state.read_text(note) == now:
        return
    check(entry.name, folder, entry.plan)
    if now is not None and note is not None and home().is_dir():  # no store begins here
        with suppress(OSError):  # it is rendered the next time
            write_atomically(note, now)


def _now(entry: Entry, folder: Path) -> str | None:
    """The digest of what the files in `folder` are made from, and of their states; None where one has none."""
    try:
        found = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:  # a link to nothing
        return None
    states = [(name, one.st_mode, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in found]
    return _digest([identity(entry), states])


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def ours(name: str, folder: Path) -> list[Path]:
    """The files in a folder that Drydock made for the profile `name`."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in there if not is_being_written(path) and owns(path, _made_for(name))]


def _left_over(name: str, folder: Path, files: Mapping[str, str]) -> list[Path]:
    return [path for path in ours(name, folder) if path.name not in files]


def _has(path: Path, text: str) -> bool:
    if not path.is_file() or not _mode_fits(path):
        return False
    found = path.read_bytes()
    # Another build of zlib compresses the same to other bytes: that is no reason to write it anew.
    return found == text.encode() or canonical(found.decode(errors="replace")) == canonical(text)


def _mode_fits(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100) == _is_executable(path.name)


def _is_executable(file: str) -> bool:
    return file.endswith((".sh", ".py"))


def _made_for(name: str) -> Callable[[str], bool]:
    """Whether Drydock made a text for the profile `name`: what its templates say near the top, and nobody else."""

    def is_made(text: str) -> bool:
        mark = re.search(r"^(?:# )?Generated by Drydock[ ;].*[Dd]o not edit.*$", text[:2000], re.MULTILINE)
        return mark is not None and f"profiles/{split(name)[1]}.toml" in mark[0]

    return is_made
