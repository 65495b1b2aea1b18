"""Lock a profile, and allow in it the builds of sources that it turns out to need."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from builder.author.requirements import with_builds
from builder.errors import LockError, ProfileError, UsageError
from builder.files import display
from builder.lock.model import dump
from builder.lock.unbuilt import Unbuilt, UnbuiltError
from builder.project import undo
from builder.project.catalogue import Catalogue
from builder.project.discovery import own_profile_folders
from builder.project.lock import Relocked
from builder.report import Reporter

_ROUNDS = 8
Again = Callable[[Catalogue], Relocked]
"""Locks the profile as a catalogue has it, and writes nothing."""


def lock_with_builds(
    name: str, catalogue: Catalogue, report: Reporter, again: Again, allowed: Collection[str] | None, *, dry_run: bool
) -> Relocked:
    """Lock the profile `name`, with the builds that it needs written into its [packages.build].

    `allowed` are the packages that may be built; None is every one. The profile and the lock are written together, or
    neither. Raises UsageError for a package that needs no build, UnbuiltError where one is needed that is not allowed,
    and as `again` does.
    """
    path = catalogue.path(name).absolute()
    before = undo.text_of(path)
    text, view = before or "", catalogue
    new: dict[str, Unbuilt] = {}
    for _ in range(_ROUNDS):
        try:
            done = again(view)
            break
        except UnbuiltError as error:
            more = [one for one in error.sources if (allowed is None or one.name in allowed) and one.name not in new]
            if not more:
                _check_used(allowed or (), {*new, *(one.name for one in error.sources)})
                raise
            _check_own(path)
            new |= {one.name: one for one in more}
            text = with_builds(text, {one.name: one.requires for one in more})
            view = catalogue.with_files({path: text.encode()})
    else:
        raise ProfileError(f"{name} needs more and more builds", hint="allow them in [packages.build], one by one")
    _check_used(allowed or (), {*new, *view.profile(name).packages.build})
    for one in new.values():
        report.step(f"{name}: to be built: {one}")
    if dry_run or not (new or done.new):
        return done
    lock = view.entry(name).lock_path.absolute()
    files: dict[Path, str | None] = {path: text, lock: dump(done.lock)} if new else {lock: dump(done.lock)}
    old = {one: undo.text_of(one) for one in files}
    try:
        undo.put(files)
    except OSError as error:
        undo.put(old)
        raise LockError(f"{error.filename} cannot be written: {error.strerror}") from None
    if new and undo.remember(undo.Change(f"lock {name} --allow-builds", old, {})):
        report.step(f"changed: {display(path)}, {display(lock)}; to take it back: drydock undo")
    return Relocked(done.lock, done.changes, new=done.new, written=True)


def _check_own(path: Path) -> None:
    if path.parent not in [folder.absolute() for folder in own_profile_folders()]:
        raise UsageError(
            f"{display(path)} is not a profile of this project, and builds are allowed in one",
            hint="extend it in a profile of your own: drydock init",
        )


def _check_used(allowed: Iterable[str], built: Collection[str]) -> None:
    if unused := sorted(set(allowed) - set(built)):
        near = difflib.get_close_matches(unused[0], built, 1)
        raise UsageError(
            f"{unused[0]} needs no build, so that none is allowed",
            hint=f"did you mean {near[0]}?" if near else None,
        )
