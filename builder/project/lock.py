"""Bring the lock of a profile up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import LockError, PatchError, Where
from builder.files import display, write_atomically
from builder.lock.model import Change, Lock, changes, digest, dump
from builder.lock.resolve import resolve
from builder.project.catalogue import Catalogue, Entry
from builder.project.sources import consent
from builder.report import Reporter


@dataclass(frozen=True)
class Relocked:
    """What locking did: the lock, what changed in it, whether it is another than before, and whether it was written."""

    lock: Lock
    changes: list[Change]
    new: bool
    written: bool


def relock(
    name: str,
    catalogue: Catalogue,
    report: Reporter,
    *,
    upgrade: Sequence[str] = (),
    upgrade_all: bool = False,
    dry_run: bool = False,
) -> Relocked:
    """Lock the profile `name` again where it changed since, or where an upgrade is asked for.

    A lock that is fresh is left alone, to the byte. Raises ProfileError, LockError, PatchError.
    """
    entry = catalogue.entry(name)
    entry.check_lockable()
    profile, texts, path = entry.profile, entry.texts, entry.lock_path
    previous = _previous(entry)
    _ = entry.code  # before an index is asked for a package by the project's own name
    builds = consent.for_builds(entry)  # a source distribution runs its own code where it is resolved
    if previous and not (upgrade or upgrade_all) and previous.digest == digest(profile, texts):
        return Relocked(previous, [], new=False, written=False)
    kept = None if upgrade_all else previous
    with report.busy(f"locking {name}"):
        try:
            lock = resolve(profile, texts, builds, previous=kept, upgrade=upgrade, step=report.detail)
        except (LockError, PatchError) as error:
            error.where = error.where or Where(display(entry.path))
            raise
    entry.check_lock(lock)
    text = dump(lock)
    if previous and dump(previous) == text:
        return Relocked(lock, [], new=False, written=False)
    if not dry_run:
        try:
            write_atomically(path, text)
        except OSError as error:
            raise LockError(
                f"the lock cannot be written: {error.strerror}",
                hint="copy the profile to ./profiles and lock it there",
                where=Where(display(path)),
            ) from None
    return Relocked(lock, changes(previous, lock), new=True, written=not dry_run)


def _previous(entry: Entry) -> Lock | None:
    """The lock that is there; one that is edited or broken is replaced, its versions are not to be trusted."""
    try:
        return entry.lock
    except LockError:
        return None
