"""Bring the lock of a profile up to date."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from builder import uv
from builder.embedded import wheels
from builder.embedded.errors import StageError
from builder.embedded.words import plural
from builder.errors import LockError, PatchError, Where
from builder.files import display, write_atomically
from builder.lock.model import Change, Lock, NewerLockError, changes, digest, dump
from builder.lock.resolve import resolve
from builder.profile.model import Profile
from builder.project import data, direct
from builder.project.alike import alike, locks_of
from builder.project.caches import cache_places
from builder.project.catalogue import Catalogue, Entry
from builder.project.sources import consent
from builder.project.trainer import UPGRADE, lock_source
from builder.report import Growth, Reporter
from builder.store import built
from builder.store.layout import Store


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
    wants_builds: bool = False,
    made: Mapping[str, Lock] = MappingProxyType({}),
) -> Relocked:
    """Lock the profile `name` again where it changed since, or where an upgrade is asked for.

    A lock that is fresh is left alone, to the byte. Versions are those of the profiles that read the same file, where
    they fit and there are none yet; `made` has the locks of this command, which are newer than what was read. With
    `wants_builds` what was passed over for want of a wheel is an error, however small. Raises ProfileError, LockError,
    UnbuiltError, PatchError.
    """
    entry = catalogue.entry(name)
    entry.check_lockable()
    profile, texts, path = entry.profile, entry.texts, entry.lock_path
    previous = _previous(entry)
    _ = entry.code  # before an index is asked for a package by the project's own name
    builds = consent.for_builds(entry)  # a source distribution runs its own code where it is resolved
    if previous and not (upgrade or upgrade_all) and _is_fresh(entry, previous):
        return Relocked(previous, [], new=False, written=False)
    for one in entry.left_out:
        report.warn(f"not carried over: {one}")
    kept = None if upgrade_all else previous
    others = alike(name, catalogue)
    beside = locks_of([one for one in others if one in made or not upgrade_all], catalogue, made)
    with _under_way(report, name) as (step, work):
        try:
            _check_release(profile)
            trainer = lock_source(entry, None if UPGRADE in upgrade else kept, work, step)
            rows = data.lock_data(entry, kept, upgrade, step)
            fetched = direct.fetch(entry, kept, upgrade, work / "places", step)
            lock = resolve(
                profile,
                texts,
                builds,
                previous=kept,
                beside=list(beside.values()),
                upgrade=[one for one in upgrade if not _is_ours(one, profile)],
                caches=known_caches(),
                work=work,
                step=step,
                warn=report.warn,
                wants_builds=wants_builds,
                fetched=fetched,
                keep=lambda wheel, one: built.keep(wheel, one.build_requires, path),
            )
            lock = lock.model_copy(update={"trainer": trainer, "data": rows})
            _check_files(profile, lock)
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


def lock_of_variant(entry: Entry, profile: Profile, upgrade: Sequence[str], report: Reporter) -> Lock:
    """The lock of `profile`, which is that of `entry` with some change; nothing is written.

    Versions are those of the lock of `entry`, but for those of `upgrade`, and what has to go with them. Raises
    LockError, PatchError.
    """
    previous = entry.lock
    with _under_way(report, entry.name) as (step, work):
        lock = resolve(
            profile,
            entry.texts,
            consent.for_builds(entry),
            previous=previous,
            upgrade=upgrade,
            caches=known_caches(),
            work=work,
            step=step,
            fetched=direct.fetch(entry, previous, upgrade, work / "places", step),
        )
    return lock.model_copy(update={"trainer": previous.trainer, "data": previous.data})


@contextmanager
def _under_way(report: Reporter, name: str) -> Iterator[tuple[Callable[[str], None], Path]]:
    """A context in which `name` is locked: who hears of its steps, and a folder to fetch to, which is watched."""
    with report.busy(f"locking {name}"), tempfile.TemporaryDirectory(prefix="drydock-lock-") as work:
        Path(work, "places").mkdir()
        with Growth(report, f"locking {name}", Path(work)) as growth:
            yield growth.step, Path(work)


def _is_ours(word: str, profile: Profile) -> bool:
    """Whether a word of `--upgrade` is none of a package."""
    return (word == UPGRADE and profile.trainer.source is not None) or (data.is_upgrade(word) and bool(profile.data))


def _is_fresh(entry: Entry, lock: Lock) -> bool:
    if lock.digest != digest(entry.profile, entry.texts):
        return False
    try:
        direct.check_fresh(entry, lock)
        data.check_fresh(entry, lock)
    except LockError:
        return False
    return True


def words(lock: Lock) -> str:
    """How much a lock is: "46 packages, 3,058 MB; data: 7 files, 988.1 MB"."""
    files = [file for one in lock.data for file in one.files]
    data = f"; data: {plural(len(files), 'file')}, {sum(file.size for file in files) / 1e6:,.1f} MB" if files else ""
    return f"{plural(len(lock.packages), 'package')}, {lock.size / 1e6:,.0f} MB{data}"


def known_caches() -> list[str]:
    """The mirror of this machine, which `drydock pull` fills, and the caches of the project."""
    return [str(Store.here().home / "cache" / "mirror"), *cache_places()]


def _check_release(profile: Profile) -> None:
    """Raise LockError where the profile wants a patch release of Python that neither this machine nor uv has."""
    release, series = profile.python.release, profile.python.series
    # Of one of python-build-standalone, the resolution says so itself.
    if release is None or profile.python.standalone or uv.known_pythons(release) or uv.finds_python(release):
        return
    newest = next((str(row["version"]) for row in uv.known_pythons(series)), None)
    known = f'the newest that it can fetch: version = "{newest}"' if newest else f"it can fetch none of {series}"
    raise LockError(
        f"[python] version: there is no Python {release} here, and uv knows none",
        hint=f'{known}; any release: version = "{series}"',
    )


def _check_files(profile: Profile, lock: Lock) -> None:
    """Raise LockError where packages bring different files for one path, as far as they were unpacked here before.

    What a wheel has in it is said by no index; a build sees the rest.
    """
    try:
        wheels.owned(unpacked(profile, lock), profile.packages.overlap)
    except wheels.ChangedError:
        pass
    except StageError as error:
        raise LockError(str(error), hint=error.hint) from None


def unpacked(profile: Profile, lock: Lock) -> list[wheels.Wheel]:
    """The locked packages that were unpacked here before."""
    folder = Store.here().home / "wheels" / f"cpython-{profile.python.series.replace('.', '')}"
    builds = [package.model_dump() for package in lock.build_requires]
    named = [(wheels.identity(package.model_dump(), builds), package.name) for package in lock.packages]
    return [one for pair in named if (one := wheels.known(folder, *pair))]


def _previous(entry: Entry) -> Lock | None:
    """The lock that is there; one that is edited or broken is replaced, its versions are not to be trusted.

    Raises NewerLockError.
    """
    try:
        return entry.lock
    except NewerLockError:
        raise
    except LockError:
        return None
