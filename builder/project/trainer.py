"""The trainer's own code, as `[trainer.source]` names it: locked by commit and content, and brought into the store.

Nothing of it runs here; it is read where a person has agreed to the profile.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from builder.embedded import source
from builder.embedded.errors import StageError
from builder.embedded.hashes import sha256
from builder.errors import DrydockError, LockError
from builder.files import beside, hash_of, make_folder
from builder.lock.model import Lock, LockedSource
from builder.names import SOURCE_END
from builder.profile.model import Profile, TrainerSource
from builder.project.catalogue import Entry
from builder.project.sources import consent, git
from builder.store.layout import Store

UPGRADE = "trainer"
"""What `drydock lock --upgrade` calls it."""


def lock_source(entry: Entry, previous: Lock | None, folder: Path, step: Callable[[str], None]) -> LockedSource | None:
    """The lock of the source that a profile names; that of the `previous` lock, where it is of the same place. It is
    fetched to a folder in `folder`.

    Raises LockError, ConsentError.
    """
    named = entry.profile.trainer.source
    if named is None:
        return None
    before = previous.trainer if previous is not None else None
    place = sha256(repr(named.place).encode())
    if before is not None and before.place == place:
        return before
    consent.check(entry.name, entry.content)
    with tempfile.TemporaryDirectory(prefix="trainer-", dir=folder) as work:
        try:
            return _locked(named, entry.profile, place, Path(work), step)
        except (DrydockError, StageError, OSError) as error:
            hint = getattr(error, "hint", None) or None
            raise LockError(f"[trainer.source] {named.place}: {error}", hint=hint) from None


def _locked(
    named: TrainerSource, profile: Profile, place: str, work: Path, step: Callable[[str], None]
) -> LockedSource:
    step(f"fetching the trainer's code: {named.place}")
    ref = git.resolve(named.git, named.rev)
    # As a source of profiles is: what it is called, how much it is, and no links.
    root = git.fetch(
        named.git,
        ref,
        ref.commit,
        work,
        lambda path: step(f"left out, because it is a link: {path!a}"),
        most=source.LARGEST,
    )
    modules = root / ".gitmodules"
    if modules.is_file() and modules.stat().st_size:
        step("its submodules are not fetched: what they have is not in the copy that the trainer runs in")
    archive = work / f"{named.name}-{ref.commit[:12]}{SOURCE_END}"
    source.pack(work / "files.tar", archive)
    _check_needs(named, profile, archive)
    digest = hash_of(archive)
    kept = Store.here().built / digest / archive.name
    make_folder(kept.parent)
    new = beside(kept)
    shutil.copyfile(archive, new)
    new.replace(kept)
    return LockedSource(file=archive.name, size=archive.stat().st_size, sha256=digest, commit=ref.commit, place=place)


def _check_needs(named: TrainerSource, profile: Profile, archive: Path) -> None:
    """Raise LockError where what the trainer needs is not in its source."""
    with zipfile.ZipFile(archive) as packed:
        there = packed.namelist()
    path = "/".join(filter(None, (named.folder, profile.trainer.needs)))
    if path and not any(one == path or one.startswith(f"{path.rstrip('/')}/") for one in there):
        raise LockError(f"it does not have {path}, which the trainer needs")


def bring(profile: Profile, locked: LockedSource) -> Path:
    """The archive of a trainer's code, in the store: from where it is known, else made of its commit.

    Raises DrydockError.
    """
    named = profile.trainer.source
    if named is None:
        raise LockError(f"{profile.name} has no trainer.source any more", hint=f"drydock lock {profile.name}")
    home = Store.here().home
    wanted = source.Wanted(locked.file, locked.sha256, named.git, locked.commit)
    try:
        return source.bring(wanted, home, home / "cache" / "mirror")
    except StageError as error:
        raise DrydockError(str(error), hint=error.hint or None) from None
